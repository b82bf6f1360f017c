"""The workers' processes of a run on Ray, as the driver sees them.

As many as are wanted (`desired_workers`), each sent to the server again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.launch.actors.processes import WorkerStartError
from distsgd.parallel.launch.calls.calls import ActorDied, ActorInitError, Calls, errors_of_ray
from distsgd.parallel.transport.interface import Address

# A worker that was there and is not for so long, while Ray says nothing, is stopped: it is ended.
MISSING_S = 30.0
GET_TIMEOUT_S = 10.0  # What is fetched is there already.
MAX_START_DEATHS = 3  # Of a worker that was never there: then it is not the machine's chance.


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

    def count(self, where: Callable[[Any], bool]) -> int:
        """How many there are of which `where` is true."""
        return sum(1 for actor in self._actors.values() if where(actor))

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
