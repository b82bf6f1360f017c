"""What runs in the processes that Ray starts: plain classes, made actors in `supervisor`.

And how events of the loop come from the server's process to the driver's.

An error in a constructor never leaves it: Ray would hand it on as text, after a restart or none.
The first call gets it.
"""

from __future__ import annotations

import importlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

import distsgd.base.runnable_kernel  # noqa: F401 -- before all that imports numpy.
from distsgd.base.files import read_json
from distsgd.base.locations import Location
from distsgd.base.named import Named
from distsgd.errors import ClusterError, RunError, WaitTimeoutError
from distsgd.parallel.launch.calls import ServerLeft, named
from distsgd.parallel.launch.head_watch import HeadWatch
from distsgd.parallel.observer import ObserverContext, make_observer
from distsgd.parallel.runner import make_runner
from distsgd.parallel.server.report import report
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import Outcome, ServerSpec, Status
from distsgd.parallel.server.step_runner import EpochEnd, Event, EventHooks, StepView
from distsgd.parallel.service import serve
from distsgd.parallel.transport.interface import Address, Handler
from distsgd.parallel.worker import WorkerSpec
from distsgd.store.logs import EvaluationRow

DRIVER_FILE = "workers.json"  # Written by the driver into the run directory.
MOST_WAITING = 64
TAKE_TIMEOUT_S = 300.0
# Of the same step, in the order in which they happen.
_ORDER: dict[type, int] = {EpochEnd: 0, EvaluationRow: 1, StepView: 2}
_NEEDS = "it needs the same packages and the same prepared data as the server"


class WorkerStartError(ClusterError):
    """Worker `worker` cannot be started on node `host`, if that is known, for `reason`."""

    def __init__(self, worker: int, host: str, reason: str) -> None:
        super().__init__(worker, host, reason)
        self.worker, self.host, self.reason = worker, host, reason

    def __str__(self) -> str:
        where = f" on node {self.host}" if self.host else ""
        return f"worker {self.worker} cannot be started{where}: {self.reason}"


class RunNotSeenError(ClusterError):
    """Node `host` does not see the run directory `run`."""

    def __init__(self, host: str, run: str) -> None:
        super().__init__(host, run)
        self.host, self.run = host, run

    def __str__(self) -> str:
        return (
            f"node {self.host} does not see the run directory {self.run}; put it on a disk that "
            "all nodes share (--run-dir), or start the run on a node that sees it"
        )


def session_of(secret: bytes) -> str:
    """What the driver's file says in the session of a run that has this secret."""
    return str(blake3(secret).hexdigest()[:16])


def _check_sees_run(spec: ServerSpec) -> None:
    """Make sure that this node has the driver's run directory, not another of the same name.

    Raises:
        RunNotSeenError: It has not.
    """
    run = spec.record.run
    if isinstance(run, Location):
        return  # Every node reaches it, or says so when it fetches the run.
    try:
        is_seen = read_json(run / DRIVER_FILE).get("session") == session_of(spec.pool.secret)
    except RunError:
        is_seen = False
    if not is_seen:
        raise RunNotSeenError(socket.gethostname(), str(run))


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


class EventQueue:
    """Events on their way from the server's loop to a driver in another process, in order.

    At most `MOST_WAITING` wait; then the loop waits, `timeout_s` seconds at most.
    """

    def __init__(self, timeout_s: float = TAKE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, event: Event) -> None:
        """Add `event`; blocks while the queue is full, and does nothing once it is closed.

        Raises:
            WaitTimeoutError: The driver takes none any more.
        """
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._is_closed or len(self._events) < MOST_WAITING, self._timeout_s
            )
            if not has_room:
                raise WaitTimeoutError(
                    f"the driver to take the events before step {event.step} "
                    "(one of its callbacks does not return)",
                    self._timeout_s,
                )
            if not self._is_closed:
                self._events.append(event)
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Event]:
        """All events that wait; blocks up to `timeout_s` seconds until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._events, timeout_s)
            events = list(self._events)
            self._events.clear()
            self._changed.notify_all()
            return events

    def close(self) -> None:
        """Nothing observes any more: forget what waits, and never wait again."""
        with self._changed:
            self._is_closed = True
            self._events.clear()
            self._changed.notify_all()


class Delivery:
    """The driver's side: every event once, in order, also where a server died and redid steps."""

    def __init__(self, notify: Callable[[Event], None]) -> None:
        self._notify = notify
        self._incarnation = 0
        self._last = (-1, 0)  # Step and order of the last event.
        self._is_redoing = False
        self._error: Exception | None = None

    def deliver(self, events: Sequence[Event], incarnation: int) -> bool:
        """Call back for what was not shown yet; False once a callback has raised an error."""
        if incarnation != self._incarnation:
            self._incarnation, self._is_redoing = incarnation, True
        for event in events:
            if self._error is not None:
                break
            now = (event.step, _ORDER[type(event)])
            if self._is_redoing and now <= self._last:
                continue
            self._is_redoing, self._last = False, now
            try:
                self._notify(event)
            except Exception as error:  # noqa: BLE001 -- raised again when the run has ended.
                self._error = error
        return self._error is None

    def end(self) -> None:
        """The run has ended; raises what the callback raised."""
        if self._error is not None:
            raise self._error


class ServerActor(ParameterServer):
    """The server's process; events of its loop wait here for the driver to take them.

    Where the head of the cluster is gone, it stops with a checkpoint: its driver may be gone too,
    and another server must not find the run taken.
    """

    def __init__(
        self, spec: ServerSpec, worker: str, incarnation: int, *, head: str | None = None
    ) -> None:
        self._head, self._events = head, EventQueue()
        self._wanted: tuple[int, ...] = ()
        self._error: Exception | None = None
        if not spec.pool.host:
            spec = replace(spec, pool=replace(spec.pool, host=_address_of_this_node()))
        put: dict[str, Any] = dict.fromkeys(spec.observed_events, self._events.put)
        try:
            _check_sees_run(spec)
            super().__init__(
                spec,
                partial(make_runner, worker),
                incarnation=incarnation,
                hooks=EventHooks(**put),
            )
        except SystemExit as error:
            self._error = ClusterError(f"the server cannot be started: {named(error)}")
        except Exception as error:  # noqa: BLE001 -- raised again by the first call.
            self._error = error

    def train(self) -> Outcome:
        """See `ParameterServer.train`.

        Raises:
            ServerLeft: The head was gone, and it stopped by itself.
        """
        if self._head is None:
            return super().train()
        left = threading.Event()

        def leave() -> None:
            left.set()
            self.stop_events()

        with HeadWatch(self._head, leave):
            outcome = super().train()
        if left.is_set() and outcome.status == "interrupted":
            raise ServerLeft(outcome.steps)
        return outcome

    def address(self) -> Address:
        """Where workers connect.

        Raises:
            Exception: What the constructor raised.
        """
        if self._error is not None:
            raise self._error
        return super().address()

    def status(self, known: int = 0) -> Status:
        """See `ParameterServer.status`."""
        return replace(super().status(known), wanted=self._wanted)

    def report(self) -> dict[str, Any]:
        """Where the run is, for a process that is not its driver."""
        spec = self._spec
        return report(str(spec.record.run), spec.total_steps, super().status())

    def want_workers(self, count: int) -> None:
        """Have `count` workers from now on: the driver sees it in `status`, and has them."""
        self._wanted += (count,)

    def take_events(self, timeout_s: float) -> list[Event]:
        """All events that wait, in order; blocks up to `timeout_s` seconds until there is one."""
        return self._events.take(timeout_s)

    def stop_events(self) -> None:
        """The events are no longer wanted: end after the present step, with a checkpoint."""
        self._events.close()
        self.request_stop()


def _address_of_this_node() -> str:
    """Where other processes of the joined Ray reach the node of this actor."""
    return str(importlib.import_module("ray.util").get_node_ip_address())
