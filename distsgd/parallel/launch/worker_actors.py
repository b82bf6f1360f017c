"""The workers' processes of a run on Ray, as the driver sees them.

As many as are wanted, each sent to the server again and again.

How many are wanted can change during the run: a small file in the run directory says it, and
`distsgd scale-to` writes it. No input to the bits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from distsgd.base.files import read_json, write_json_atomic
from distsgd.base.locations import Location
from distsgd.base.private_directories import directory_of
from distsgd.errors import RunError, WaitTimeoutError
from distsgd.parallel.launch.calls import ActorDied, ActorInitError, Calls, errors_of_ray
from distsgd.parallel.launch.ray_actors import DRIVER_FILE, WorkerStartError
from distsgd.parallel.transport.interface import Address

FILE = DRIVER_FILE
MOST_WORKERS = 4096
# A worker that was there and is not for so long, while Ray says nothing, is stopped: it is ended.
MISSING_S = 30.0
GET_TIMEOUT_S = 10.0  # What is fetched is there already.
MAX_START_DEATHS = 3  # Of a worker that was never there: then it is not the machine's chance.


class DesiredWorkers:
    """How many workers are wanted, in the run directory; written by the driver and `ask`."""

    def __init__(self, run: Path | Location) -> None:
        if isinstance(run, Location):  # Nothing is written there but by the server.
            run, _ = directory_of(self, "distsgd-run")
        self._path = run / FILE
        self._seen: tuple[int, int] | None = None

    def begin(self, count: int, session: str = "", address: str | None = None) -> None:
        """The driver is this process, and has `count` workers started in `session`.

        `address` is that of the cluster; None for a Ray of the run's own.
        """
        found = {"wanted": count, "driver": this_process(), "session": session, "address": address}
        write_json_atomic(self._path, found)
        self._changed()

    def end(self) -> None:
        """Nobody looks any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

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


class WorkerActors:
    """The worker actors by number.

    Args:
        calls: What is asked of Ray.
        make: Makes a worker actor.
        clock: Seconds.
    """

    def __init__(
        self, calls: Calls, make: Callable[[], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls, self._make, self._clock = calls, make, clock
        self._actors: dict[int, Any] = {}
        self._services: dict[Any, int] = {}
        self._last_there: dict[int, float] = {}
        self._start_deaths: dict[int, int] = {}  # Of those who were never there.
        self._deaths: list[str] = []
        self._address: Address | None = None

    def __len__(self) -> int:
        return len(self._actors)

    def scale(self, count: int) -> None:
        """Have `count` workers: start the missing ones, end those with the highest numbers."""
        for number in range(count):
            if number not in self._actors:
                with errors_of_ray(f"starting worker {number}"):
                    self._actors[number] = self._make()
                self._start_deaths[number] = 0
                self._send(number)
        for number in [it for it in self._actors if it >= count]:
            self._drop(number)

    def serve(self, address: Address) -> None:
        """There is a new server: send all workers there."""
        self._address = address
        self._services.clear()
        for number in self._actors:
            self._send(number)

    def look(self, members: Collection[int]) -> list[WorkerStartError]:
        """Send workers that came back to the server; `members` are those that it has.

        Returns:
            Why workers cannot be started; they are given up.

        Raises:
            DistSGDError: What a worker raised while it served.
        """
        for number in members:
            self._start_deaths.pop(number, None)
        failures = []
        for service in self._calls.ended(list(self._services), 0):
            number = self._services.pop(service)
            failure = self._end_of(service, number)
            if number not in self._actors:
                continue
            if failure is None:
                self._send(number)
            else:
                self._drop(number)
                failures.append(failure)
        self._end_the_missing(members)
        return failures

    def restart(self, where: Callable[[Any], bool]) -> list[int]:
        """Have those of which `where` is true started again by Ray; their numbers."""
        numbers = [number for number, actor in self._actors.items() if where(actor)]
        for number in numbers:
            self._calls.kill(self._actors[number], no_restart=False)
        return numbers

    def take_deaths(self) -> list[str]:
        """How workers died since the last call, as far as that is known."""
        deaths, self._deaths = self._deaths, []
        return deaths

    def end(self) -> None:
        """End all of them, also those that do not answer."""
        for actor in self._actors.values():
            self._calls.kill(actor)

    def _end_of(self, service: Any, number: int) -> WorkerStartError | None:
        """Why worker `number` cannot be started, if its service ended by that."""
        try:
            self._calls.get(service, f"worker {number} to say how it ended", GET_TIMEOUT_S)
        except WorkerStartError as failure:
            return failure
        except ActorInitError as error:
            return WorkerStartError(number, "", str(error))
        except ActorDied as death:  # Ray starts it again before it serves.
            if number in self._actors and (said := self._calls.last_death(self._actors[number])):
                self._deaths.append(f"worker {number} died {said}")
            if number in self._start_deaths:
                self._start_deaths[number] += 1
                if self._start_deaths[number] >= MAX_START_DEATHS:
                    reason = (
                        f"its process died {MAX_START_DEATHS} times while it started, by a signal, "
                        "for want of memory, or in a library; Ray's logs on its node know more, "
                        f"here it says: {death}"
                    )
                    return WorkerStartError(number, "", reason)
        except WaitTimeoutError:
            pass  # Ray has it and does not give it out; it is asked again.
        return None  # It lost the server and lives.

    def _send(self, number: int) -> None:
        if self._address is not None:
            with errors_of_ray(f"sending worker {number} to the server"):
                service = self._actors[number].serve.remote(self._address, number)
            self._services[service] = number

    def _drop(self, number: int) -> None:
        self._last_there.pop(number, None)
        self._start_deaths.pop(number, None)
        self._calls.kill(self._actors.pop(number))

    def _end_the_missing(self, members: Collection[int]) -> None:
        now_s = self._clock()
        self._last_there |= dict.fromkeys(members, now_s)
        for number, last_s in list(self._last_there.items()):
            if now_s - last_s > MISSING_S:
                del self._last_there[number]
                if number in self._actors:
                    self._calls.kill(self._actors[number], no_restart=False)
