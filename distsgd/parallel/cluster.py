"""Ray: it places, starts and supervises the server and the workers, and hands out the run's secret.

No arrays go through it.

The only module that imports ray, and only once its settings are in the environment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distsgd.errors import ClusterError, DistSGDError, ExchangeTimeoutError
from distsgd.parallel import local_ray, numerics
from distsgd.parallel.exchange.contract import Address
from distsgd.parallel.launch import LOOK_S, Watch, worker_maker
from distsgd.parallel.messages import WorkerTask
from distsgd.parallel.server import Outcome, ParameterServer, ServerTask
from distsgd.parallel.service import serve

START_TIMEOUT_S = 120.0
STATUS_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
MAX_SERVER_DEATHS = 3  # At one step: then it is the step, and not the machine.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's minimum; the arrays take another way.


def train_on_ray(task: ServerTask, worker: str, watch: Watch, *, address: str) -> Outcome:
    """Train with a server actor and worker actors; blocks, and calls `watch` now and then.

    Args:
        task: The run; its secret is made here.
        worker: The worker class, as ``module:class``.
        watch: Whoever looks on.
        address: "local" for a Ray of our own, or the address of a cluster.

    Raises:
        ClusterError: Ray cannot be started or joined, or its processes do not come up or stay up.
        DistSGDError: What `ParameterServer.train` raises.
    """
    refuse_shadowing(worker)
    with _ray(address, num_cpus=task.crew.num_workers + 1) as ray:
        host = "127.0.0.1" if address == "local" else ray.util.get_node_ip_address()
        is_shared = task.crew.exchange == "auto" and address != "local"
        crew = replace(
            task.crew,
            secret=secrets.token_bytes(32),
            host=host,
            exchange="zmq" if is_shared else task.crew.exchange,
        )
        supervisor = _Supervisor(ray, replace(task, crew=crew), worker)
        try:
            return supervisor.run(watch)
        finally:
            supervisor.end()


def examine_ray() -> dict[str, float]:
    """Start a Ray of our own and end it: how long that takes, and how nice its workers are."""
    started = time.monotonic()
    with _ray("local", num_cpus=1) as ray:
        start_s = time.monotonic() - started
        found = ray.get(ray.remote(_niceness).remote(), timeout=START_TIMEOUT_S)
    return {"ray_start_s": round(start_s, 2), "worker_niceness": found}


def _niceness() -> int:
    return os.nice(0)


def refuse_shadowing(worker: str) -> None:
    """Refuse a current directory whose own modules would hide ours in Ray's processes.

    Ray puts the driver's current directory first on each worker's path.

    Raises:
        ClusterError: Names the module.
    """
    for name in ("distsgd", worker.partition(".")[0]):
        spec = importlib.util.find_spec(name)
        ours = Path(spec.origin).resolve().parent if spec and spec.origin else None
        here = Path.cwd() / name
        for other in (here, here.with_suffix(".py")):
            if other.exists() and ours is not None and other.resolve() != ours:
                raise ClusterError(
                    f"{other} would hide the package {name} in {ours}, because Ray looks in "
                    "the current "
                    "directory first; rename it, or start from another directory"
                )


@contextlib.contextmanager
def _ray(address: str, *, num_cpus: int) -> Iterator[Any]:
    """A connection to Ray: one of our own, ended at the end, or the cluster at `address`."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address, "log_to_driver": False}
        if address == "local":
            stack.enter_context(local_ray.environment())
            directory = stack.enter_context(local_ray.private_directory())
            options |= {
                "num_cpus": num_cpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": str(directory),
            }
        ray = _import_ray(is_local=address == "local")
        try:
            with _signals_kept():
                ray.init(configure_logging=False, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ClusterError(f'Ray at "{address}" cannot be used: {error}') from error
        stack.callback(ray.shutdown)
        yield ray


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM that `ray.init` replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _import_ray(*, is_local: bool) -> Any:
    import ray  # noqa: PLC0415 -- not before its settings are in the environment.
    from ray._private import ray_constants  # noqa: PLC0415 -- the same.

    if ray.is_initialized():
        raise ClusterError(
            "this process is connected to a Ray already; call ray.shutdown() first, or set "
            '[parallel] address = "auto" after it'
        )
    if is_local and ray_constants.ENABLE_RAY_CLUSTER:
        raise ClusterError(
            "ray was imported before distsgd could tell it to listen on loopback only; set "
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 in the environment, or import ray later"
        )
    return ray


class WorkerActor:
    """A worker's process."""

    def __init__(self, task: WorkerTask, worker: str) -> None:
        self._worker = worker_maker(worker)(task)

    def serve(self, address: Address, number: int) -> int:
        """Serve the server at `address`; blocks until it is gone."""
        return serve(self._worker, address, number)


class ServerActor(ParameterServer):
    """The server's process."""

    def __init__(self, task: ServerTask, worker: str, incarnation: int) -> None:
        super().__init__(task, worker_maker(worker), incarnation=incarnation)


class _Supervisor:
    """Keeps one server and its workers running until the run has ended.

    A dead worker's actor is started again by Ray, and told again whom to serve. A dead server is
    started as a new incarnation that goes on from the last durable state; its workers follow it.
    """

    def __init__(self, ray: Any, task: ServerTask, worker: str) -> None:
        self._ray = ray
        self._task = task
        self._worker = worker
        environment = {"env_vars": numerics.environment()}
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        # The server writes the run directory, so it stays on the node of whoever started the run.
        self._server_class = ray.remote(
            num_cpus=1,
            max_restarts=0,
            concurrency_groups={"status": 2},
            runtime_env=environment,
            scheduling_strategy=here,
        )(ServerActor)
        worker_class = ray.remote(num_cpus=1, max_restarts=-1, runtime_env=environment)(WorkerActor)
        self._workers = [
            worker_class.remote(task.worker, worker) for _ in range(task.crew.num_workers)
        ]
        self._server: Any = None
        self._services: dict[Any, int] = {}
        self._address: Address | None = None

    def run(self, watch: Watch) -> Outcome:
        """Run the server to its end, as often as it dies on the way."""
        incarnation, deaths, last_step = 0, 0, -1
        while True:
            training = self._start_server(incarnation)
            step = last_step
            try:
                while True:
                    done, _ = self._ray.wait([training], timeout=LOOK_S)
                    if done:
                        outcome: Outcome = self._get(training, "training to end", START_TIMEOUT_S)
                        self._look(watch, step)
                        return outcome
                    self._look_after_workers()
                    step = self._look(watch, step)
            except _ServerDied as death:
                deaths = deaths + 1 if step == last_step else 1
                last_step, incarnation = step, incarnation + 1
                if deaths >= MAX_SERVER_DEATHS:
                    raise ClusterError(
                        f"the server died {deaths} times at step {step}: {death}; "
                        "what is durable is kept, look at the memory and the disk of its node"
                    ) from None

    def end(self) -> None:
        """End all processes of this run, also those that do not answer."""
        for actor in (*self._workers, *([self._server] if self._server else [])):
            with contextlib.suppress(Exception):  # Already dead is as good.
                self._ray.kill(actor)

    def _start_server(self, incarnation: int) -> Any:
        self._server = self._server_class.remote(self._task, self._worker, incarnation)
        status = self._server.address.options(concurrency_group="status")
        self._address = self._get(status.remote(), "the server to start", START_TIMEOUT_S)
        self._services = {
            worker.serve.remote(self._address, number): number
            for number, worker in enumerate(self._workers)
        }
        return self._server.train.remote()

    def _look(self, watch: Watch, step: int) -> int:
        """Show where the run is, and pass a wish to stop on; the step it is at."""
        status = self._server.status.options(concurrency_group="status")
        try:
            seen = self._get(status.remote(), "the server's status", STATUS_TIMEOUT_S)
            wants_stop = watch(seen)
            step = seen.step
        except KeyboardInterrupt:
            wants_stop = True
        if wants_stop:
            stop = self._server.request_stop.options(concurrency_group="status")
            self._get(stop.remote(), "the server to take the wish to stop", STOP_TIMEOUT_S)
        return step

    def _look_after_workers(self) -> None:
        """Send workers that came back to the server; an error of ours in a worker ends the run."""
        ended, _ = self._ray.wait(list(self._services), num_returns=len(self._services), timeout=0)
        for service in ended:
            number = self._services.pop(service)
            try:
                self._ray.get(service)  # It lost the server and lives.
            except self._ray.exceptions.RayActorError:
                pass  # Its process ended; Ray starts it again before it serves.
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            again = self._workers[number].serve.remote(self._address, number)
            self._services[again] = number

    def _get(self, ref: Any, waited_for: str, timeout_s: float) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(ref, timeout=timeout_s)
        except exceptions.GetTimeoutError:
            raise ExchangeTimeoutError(waited_for, timeout_s) from None
        except exceptions.RayActorError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, DistSGDError):
                raise cause from None
            raise _ServerDied(str(error)) from None
        except exceptions.RayTaskError as error:
            raise _cause(error) from None


class _ServerDied(Exception):  # noqa: N818 -- how an incarnation ends; never leaves this module.
    """The server's process is gone."""


def _cause(error: Any) -> Exception:
    """The error of ours inside one of Ray's, or Ray's own."""
    cause = error.cause
    return cause if isinstance(cause, DistSGDError) else error
