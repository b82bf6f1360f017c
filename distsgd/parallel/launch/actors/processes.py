"""What runs in the processes that Ray starts: plain classes, made actors in `actor_classes`.

A plain function is made a task in `task_function`.

An error in a constructor never leaves it: Ray would hand it on as text, after a restart or none.
The first call gets it.
"""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import distsgd.base.runnable_kernel  # noqa: F401 -- before all that imports numpy.
from distsgd.base.locations import Location
from distsgd.base.named import Named
from distsgd.errors import ClusterError, StorageError
from distsgd.parallel import numerics
from distsgd.parallel.launch.actors.desired_workers import sees_driver, session_of
from distsgd.parallel.launch.actors.events import EventQueue
from distsgd.parallel.launch.actors.task import do_task
from distsgd.parallel.launch.calls.calls import ServerLeft, named
from distsgd.parallel.launch.calls.head_watch import HeadWatch
from distsgd.parallel.observer import ObserverContext, make_observer
from distsgd.parallel.runner import make_runner
from distsgd.parallel.server.report import report
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import Outcome, ServerSpec, Status
from distsgd.parallel.server.step_runner import Event, EventHooks
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


def _check_sees_run(spec: ServerSpec) -> None:
    """Make sure that this node has the driver's run directory, not another of the same name.

    Raises:
        RunNotSeenError: It has not.
    """
    run = spec.record.run
    if isinstance(run, Location):
        return  # Every node reaches it, or says so when it fetches the run.
    if not sees_driver(run, session_of(spec.pool.secret)):
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
        self._expected: tuple[int, str] = (spec.pool.num_workers or 0, "")
        self._is_to_stop = False
        self._ended = threading.Event()
        self._ending: str | None = None
        self._error: Exception | None = None
        if not spec.pool.host:
            spec = replace(spec, pool=replace(spec.pool, host=_address_of_this_node()))
        put: dict[str, Any] = dict.fromkeys(spec.observed_events, self._events.put)
        try:
            _check_sees_run(spec)
            with nullcontext() if head is None else _naming_this_node():
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
        try:
            outcome = self._train_under_a_head()
            self._ending = outcome.status
            return outcome
        finally:
            self._ended.set()

    def _train_under_a_head(self) -> Outcome:
        if self._head is None:
            return super().train()
        left = threading.Event()

        def leave() -> None:
            left.set()
            self.stop_events()

        with _naming_this_node(), HeadWatch(self._head, leave):
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
        status = super().status(known)
        num_expected, lack = self._expected
        return replace(
            status,
            wanted=self._wanted,
            is_to_stop=self._is_to_stop,
            num_expected=num_expected,
            lack=lack,
        )

    def expect(self, num_workers: int, lack: str = "") -> None:
        """See `ParameterServer.expect`; `lack` says why there is no room for all of them yet."""
        self._expected = num_workers, lack
        super().expect(num_workers)

    def report(self) -> dict[str, Any]:
        """Where the run is, for a process that is not its driver; how it ended, once it has."""
        spec = self._spec
        found = report(str(spec.record.run), spec.total_steps, self.status())
        if self._ended.is_set():
            found["status"] = self._ending or "failed"
        return found

    def wait_for_end(self, timeout_s: float) -> dict[str, Any]:
        """The report once training has ended, or after `timeout_s` seconds; blocks."""
        self._ended.wait(timeout_s)
        return self.report()

    def want_stop(self) -> None:
        """End the run after its present step: the driver sees it in `status`, and keeps to it."""
        self._is_to_stop = True
        self.request_stop()

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


@contextmanager
def _naming_this_node() -> Iterator[None]:
    """What storage refuses in the block is refused to this node; another may have its keys."""
    try:
        yield
    except StorageError as error:
        where = f"on node {socket.gethostname()}; its keys and endpoint are those of its ray start"
        raise type(error)(error.address, f"{error.reason} ({where})") from error


def _address_of_this_node() -> str:
    """Where other processes of the joined Ray reach the node of this actor."""
    return str(importlib.import_module("ray.util").get_node_ip_address())


def actor_classes(ray: Any, worker_takes: Mapping[str, Any]) -> tuple[Any, Any]:
    """The classes of the server's and of a worker's actor.

    Args:
        ray: The module.
        worker_takes: What a worker takes, as Ray's actor options.
    """
    environment = {"env_vars": numerics.environment()}
    server_class = ray.remote(
        num_cpus=1, max_restarts=0, concurrency_groups={"status": 2}, runtime_env=environment
    )(ServerActor)
    worker_class = ray.remote(max_restarts=-1, runtime_env=environment, **worker_takes)(WorkerActor)
    return server_class, worker_class


def task_function(ray: Any, takes: Mapping[str, Any]) -> Any:
    """`do_task` as a function of Ray's that takes these options; Ray makes none of it again."""
    environment = {"env_vars": numerics.environment()}
    return ray.remote(max_retries=0, runtime_env=environment, **takes)(do_task)
