"""The workers' processes of a run on Ray, as the driver sees them.

As many as are wanted, each sent to the server again and again.

How many are wanted can change while the run goes on: a small file in the run directory says it, and
`distsgd scale-to` writes it. No input to the bits. Ray is handed in, never imported.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from distsgd.errors import DistSGDError, RunError
from distsgd.parallel.exchange.contract import Address
from distsgd.store.atomic import read_json, write_json_atomic

FILE = "workers.json"
MOST_WORKERS = 4096
# A worker that was there and is not for so long, while Ray says nothing, is stopped: it is ended.
MISSING_S = 30.0
GET_TIMEOUT_S = 10.0  # What is fetched is there already.


class Wish:
    """How many workers somebody wants, in the run directory; written by the driver and `ask`."""

    def __init__(self, run: Path) -> None:
        self._path = run / FILE
        self._seen: tuple[int, int] | None = None

    def begin(self, count: int) -> None:
        """The driver is this process, and has `count` workers started."""
        driver = {"pid": os.getpid(), "host": socket.gethostname()}
        write_json_atomic(self._path, {"wanted": count, "driver": driver})
        self._changed()

    def end(self) -> None:
        """Nobody looks any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

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
        if not 0 <= count <= MOST_WORKERS:
            raise RunError(
                self._path.parent, f"cannot have {count} workers; must be 0 to {MOST_WORKERS}"
            )
        if not self._path.exists():
            raise RunError(
                self._path.parent,
                "is not being trained with workers of its own (nothing is running, or all runs in "
                "one process); start it with --workers",
            )
        found = self._read()
        driver = found.get("driver")
        if not _is_alive(driver):
            raise RunError(
                self._path.parent,
                f"has no driver on this machine any more (it was {driver}); go on with --resume "
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
        """Has somebody written since the last look?"""
        try:
            status = self._path.stat()
        except OSError:
            return False
        before, self._seen = self._seen, (status.st_ino, status.st_mtime_ns)
        return before != self._seen


def _is_alive(driver: Any) -> bool:
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


class Fleet:
    """The worker actors by number.

    Args:
        ray: The module.
        make: Makes a worker actor.
        clock: Seconds.
    """

    def __init__(
        self, ray: Any, make: Callable[[], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ray, self._make, self._clock = ray, make, clock
        self._actors: dict[int, Any] = {}
        self._services: dict[Any, int] = {}
        self._last_there: dict[int, float] = {}
        self._address: Address | None = None

    def __len__(self) -> int:
        return len(self._actors)

    def scale(self, count: int) -> None:
        """Have `count` workers: start the missing ones, end those with the highest numbers."""
        for number in range(count):
            if number not in self._actors:
                self._actors[number] = self._make()
                self._send(number)
        for number in [it for it in self._actors if it >= count]:
            self._last_there.pop(number, None)
            self._kill(self._actors.pop(number))

    def serve(self, address: Address) -> None:
        """There is a new server: send everybody there."""
        self._address = address
        self._services.clear()
        for number in self._actors:
            self._send(number)

    def look(self, members: Collection[int]) -> None:
        """Send workers that came back to the server; `members` are those that it has.

        Raises:
            DistSGDError: An error of ours in a worker.
        """
        services = list(self._services)
        ended = (
            self._ray.wait(services, num_returns=len(services), timeout=0)[0] if services else []
        )
        for service in ended:
            number = self._services.pop(service)
            try:
                self._ray.get(service, timeout=GET_TIMEOUT_S)  # It lost the server and lives.
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
                pass  # Its process ended; Ray starts it again before it serves.
            except self._ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            if number in self._actors:
                self._send(number)
        self._end_the_missing(members)

    def end(self) -> None:
        """End all of them, also those that do not answer."""
        for actor in self._actors.values():
            self._kill(actor)

    def _send(self, number: int) -> None:
        if self._address is not None:
            self._services[self._actors[number].serve.remote(self._address, number)] = number

    def _end_the_missing(self, members: Collection[int]) -> None:
        now_s = self._clock()
        self._last_there |= dict.fromkeys(members, now_s)
        for number, last_s in list(self._last_there.items()):
            if now_s - last_s > MISSING_S:
                del self._last_there[number]
                if number in self._actors:
                    self._kill(self._actors[number], no_restart=False)

    def _kill(self, actor: Any, *, no_restart: bool = True) -> None:
        with contextlib.suppress(Exception):  # Already dead is as good.
            self._ray.kill(actor, no_restart=no_restart)


def cause_of(error: Any) -> Exception:
    """The error of ours inside one of Ray's, or Ray's own."""
    cause = error.cause
    return cause if isinstance(cause, DistSGDError) else error
