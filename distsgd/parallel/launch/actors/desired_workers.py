"""How many workers a run on Ray is to have: a small file in the run directory says it.

The driver writes it, and looks whether `distsgd scale-to` has. It tells as well who the driver is.
An empty file named by the session tells a server that it sees the driver's directory, not another
of that name. No input to the bits; no Ray.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from blake3 import blake3

from distsgd.base.files import read_json, write_bytes_atomic, write_json_atomic
from distsgd.base.locations import Location
from distsgd.base.private_directories import directory_of
from distsgd.errors import RunError

FILE = "workers.json"
_PROOF = "session-"
MOST_WORKERS = 4096


class DesiredWorkers:
    """How many workers are wanted, in the run directory; written by the driver and `ask`."""

    def __init__(self, run: Path | Location) -> None:
        if isinstance(run, Location):  # Nothing is written there but by the server.
            run, _ = directory_of(self, "distsgd-run")
        self._path = run / FILE
        self._seen: tuple[int, int] | None = None
        self._own: dict[str, Any] = {}  # What this process has written, if it is the driver.

    def begin(self, count: int, session: str = "", address: str | None = None) -> None:
        """The driver is this process, and has `count` workers started in `session`.

        `address` is that of the cluster; None for a Ray of the run's own.
        """
        write_bytes_atomic(_proof(self._path.parent, session), b"")
        found = {"wanted": count, "driver": this_process(), "session": session, "address": address}
        write_json_atomic(self._path, found)
        self._own = found
        self._changed()

    def want(self, count: int) -> None:
        """The driver itself was asked for `count` workers, and is to see that as a change."""
        write_json_atomic(self._path, self._own | {"wanted": count})

    def end(self) -> None:
        """This driver looks no more; what is another's is left."""
        if not self._own:
            return
        with contextlib.suppress(OSError, RunError):
            _proof(self._path.parent, self._own["session"]).unlink(missing_ok=True)
            if read_json(self._path).get("session") == self._own["session"]:
                self._path.unlink()

    def elsewhere(self) -> str | None:
        """The cluster on which it is trained by a driver of another machine; None: it is not."""
        if not self._path.exists():
            return None
        found = self._read()
        address = found.get("address")
        is_here = is_alive(found.get("driver"))
        return address if isinstance(address, str) and not is_here else None

    def changed(self) -> int | None:
        """The number that is wanted from now on; None where nothing new is.

        Raises:
            RunError: What is wanted cannot be read; names the file.
        """
        return self._read()["wanted"] if self._changed() else None

    def ask(self, count: int) -> int:
        """Want `count` workers; returns how many were wanted before.

        Raises:
            RunError: The run has no driver on this machine that would look, or `count` cannot be.
        """
        check_count(self._path.parent, count)
        if not self._path.exists():
            raise RunError(
                self._path.parent,
                "is not being trained with workers of its own (nothing is running, or all runs in "
                "one process); start it with --workers",
            )
        found = self._read()
        driver = found.get("driver")
        if not is_alive(driver):
            raise RunError(
                self._path.parent,
                f"has no driver on this machine any more (it was {driver}); resume it by --resume "
                "auto --workers N",
            )
        write_json_atomic(self._path, found | {"wanted": count})
        return int(found["wanted"])

    def _read(self) -> dict[str, Any]:
        found = read_json(self._path)
        wanted = found.get("wanted")
        if type(wanted) is not int or not 0 <= wanted <= MOST_WORKERS:
            raise RunError(
                self._path, f"wants {wanted!r} workers; must be 0 to {MOST_WORKERS} (scale-to)"
            )
        return found

    def _changed(self) -> bool:
        """Has it been written since the last look?"""
        try:
            status = self._path.stat()
        except OSError:
            return False
        before, self._seen = self._seen, (status.st_ino, status.st_mtime_ns)
        return before != self._seen


def check_count(run: Path | str, count: int) -> None:
    """Raises RunError where no run can have `count` workers."""
    if not 0 <= count <= MOST_WORKERS:
        raise RunError(run, f"cannot have {count} workers; must be 0 to {MOST_WORKERS}")


def this_process() -> dict[str, Any]:
    """This process, as files of a run name a driver."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def is_alive(driver: Any) -> bool:
    """Does the process that a file names live, on this machine?"""
    if not isinstance(driver, dict) or driver.get("host") != socket.gethostname():
        return False
    pid = driver.get("pid")
    if type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def sees_driver(run: Path, session: str) -> bool:
    """Is the directory `run`, as it is seen here, the one of the driver of `session`?"""
    try:
        return _proof(run, session).is_file()
    except OSError:
        return False


def forget_drivers(run: Path) -> None:
    """Remove what drivers that were killed left in `run`; only for its one driver.

    `OSError` passes through.
    """
    for path in (run / FILE, *run.glob(f"{_PROOF}*")):
        path.unlink(missing_ok=True)


def _proof(run: Path, session: str) -> Path:
    return run / f"{_PROOF}{session}"


def session_of(secret: bytes) -> str:
    """What files call the session of a run that has this secret."""
    return str(blake3(secret).hexdigest()[:16])
