"""A server in another process: what it is asked while it trains, and how long it may take."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from distsgd.parallel.launch.calls.calls import ActorUnavailable, Calls, errors_of_ray
from distsgd.parallel.server.spec import LOOK_S, Status
from distsgd.parallel.server.step_runner import Event
from distsgd.parallel.transport.interface import Address

START_TIMEOUT_S = 120.0
STATUS_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
MOST_LOST_ANSWERS = 10


class RemoteServer:
    """The actor of a server, for its driver; each call blocks until it is answered.

    Where Ray loses a call or its answer it is made again, so each may reach the server twice.

    Args:
        calls: What is asked of Ray.
        actor: Of a `ServerActor`.
    """

    def __init__(self, calls: Calls, actor: Any) -> None:
        self._calls, self.actor = calls, actor

    def address(self) -> Address:
        """Where workers connect, once it is ready."""
        found: Address = self._ask("address", "the server to start", START_TIMEOUT_S)
        return found

    def train(self) -> Any:
        """Begin to train; what Ray gives for its end."""
        with errors_of_ray("starting the training"):
            return self.actor.train.remote()

    def status(self, known: int) -> Status:
        """See `ServerActor.status`."""
        found: Status = self._ask("status", "the server's status", STATUS_TIMEOUT_S, known)
        return found

    def take_events(self, timeout_s: float) -> list[Event]:
        """See `ServerActor.take_events`."""
        found: list[Event] = self._ask(
            "take_events", "the events of the run", STATUS_TIMEOUT_S, timeout_s
        )
        return found

    def stop_events(self) -> None:
        """See `ServerActor.stop_events`."""
        self._ask("stop_events", "the server to take the request to stop", STOP_TIMEOUT_S)

    def request_stop(self) -> None:
        """Have it end after its present step, with a checkpoint."""
        self._ask("request_stop", "the server to take the request to stop", STOP_TIMEOUT_S)

    def send_stop(self) -> None:
        """The same, and do not wait for the answer."""
        self._send("request_stop", "asking the server to stop")

    def expect(self, num_workers: int, lack: str) -> None:
        """There will be `num_workers` workers; `lack` says why some have no room yet."""
        self._ask("expect", "the server to take a number", STATUS_TIMEOUT_S, num_workers, lack)

    def note(self, message: str) -> None:
        """Have it say `message`."""
        self._ask("note", "the server to take a message", STATUS_TIMEOUT_S, message)

    def kill(self) -> None:
        """End its process, also one that does not answer."""
        self._calls.kill(self.actor)

    def ask_once(self, method: str, waited_for: str, timeout_s: float, *arguments: Any) -> Any:
        """The answer of a method that answers while it trains, however Ray takes it."""
        ref = self._send(method, f"asking for {waited_for}", *arguments)
        return self._calls.get(ref, waited_for, timeout_s)

    def _ask(self, method: str, waited_for: str, timeout_s: float, *arguments: Any) -> Any:
        for _ in range(MOST_LOST_ANSWERS):
            with contextlib.suppress(ActorUnavailable):
                return self.ask_once(method, waited_for, timeout_s, *arguments)
            time.sleep(LOOK_S)
        return self.ask_once(method, waited_for, timeout_s, *arguments)

    def _send(self, method: str, doing: str, *arguments: Any) -> Any:
        with errors_of_ray(doing):
            # In the group of its own, or it would wait behind the loop.
            call = getattr(self.actor, method).options(concurrency_group="status")
            return call.remote(*arguments)
