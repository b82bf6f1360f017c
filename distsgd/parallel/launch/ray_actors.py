"""What runs in the processes that Ray starts: plain classes, made actors in `supervisor`.

An error in a constructor never leaves it: Ray would hand it on as text, after a restart or none.
The first call gets it.
"""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Any

from distsgd.base.named import Named
from distsgd.errors import ClusterError
from distsgd.parallel.launch.calls import named
from distsgd.parallel.launch.event_queue import EventQueue
from distsgd.parallel.observer import ObserverContext, make_observer
from distsgd.parallel.runner import make_runner
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_runner import Event, Observers
from distsgd.parallel.service import serve
from distsgd.parallel.transport.interface import Address, Handler
from distsgd.parallel.worker import WorkerSpec

_NEEDS = "it needs the same packages and the same prepared data as the server"


class WorkerStartError(ClusterError):
    """Worker `worker` cannot be started on node `host`, if that is known, for `reason`."""

    def __init__(self, worker: int, host: str, reason: str) -> None:
        super().__init__(worker, host, reason)
        self.worker, self.host, self.reason = worker, host, reason

    def __str__(self) -> str:
        where = f" on node {self.host}" if self.host else ""
        return f"worker {self.worker} cannot be started{where}: {self.reason}"


class WorkerActor:
    """A worker's process; the worker is made when it is first to serve."""

    def __init__(self, spec: WorkerSpec, worker: str, *, run: Path, observer: Named | None) -> None:
        self._spec, self._name = spec, worker
        self._run, self._observer = run, observer
        self._handler: Handler | None = None

    def serve(self, address: Address, number: int) -> int:
        """Serve the server at `address`; blocks until it is gone.

        Raises:
            WorkerStartError: The worker cannot be made.
        """
        if self._handler is None:
            try:
                self._handler = self._make_handler(number)
            except (Exception, SystemExit) as error:
                reason = f"{named(error)} ({_NEEDS})"
                raise WorkerStartError(number, socket.gethostname(), reason) from error
        return serve(self._handler, address, number)

    def _make_handler(self, number: int) -> Handler:
        if self._observer is None:
            return make_runner(self._name, self._spec)
        context = ObserverContext(role="worker", run=self._run, worker=number)
        on_phase = make_observer(self._observer, context).on_phase
        return make_runner(self._name, self._spec, on_phase=on_phase)


class ServerActor(ParameterServer):
    """The server's process; events of its loop wait here for the driver to take them."""

    def __init__(self, spec: ServerSpec, worker: str, incarnation: int) -> None:
        self._events = EventQueue()
        self._error: Exception | None = None
        put: dict[str, Any] = dict.fromkeys(spec.observed, self._events.put)
        try:
            super().__init__(
                spec,
                partial(make_runner, worker),
                incarnation=incarnation,
                observers=Observers(**put),
            )
        except SystemExit as error:
            self._error = ClusterError(f"the server cannot be started: {named(error)}")
        except Exception as error:  # noqa: BLE001 -- raised again by the first call.
            self._error = error

    def address(self) -> Address:
        """Where workers connect.

        Raises:
            Exception: What the constructor raised.
        """
        if self._error is not None:
            raise self._error
        return super().address()

    def take_events(self, timeout_s: float) -> list[Event]:
        """All events that wait, in order; blocks up to `timeout_s` seconds until there is one."""
        return self._events.take(timeout_s)

    def stop_events(self) -> None:
        """The events are no longer wanted: end after the present step, with a checkpoint."""
        self._events.close()
        self.request_stop()
