"""Ray: it places, starts and supervises the server and the workers, and hands out the run's secret.

No arrays go through it.

The only module that imports ray, and only once its settings are in the environment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from distsgd.errors import ClusterError, DistSGDError, ExchangeTimeoutError, RunError
from distsgd.parallel import numerics
from distsgd.parallel.cluster import local_ray
from distsgd.parallel.cluster.actors import ServerActor, WorkerActor
from distsgd.parallel.cluster.fleet import Fleet, Wish, cause_of
from distsgd.parallel.cluster.import_path import refuse_shadowing
from distsgd.parallel.server.job import Outcome, ServerTask
from distsgd.parallel.server.step_view import Delivery, OnStep
from distsgd.parallel.watch import LOOK_S, Watch

START_TIMEOUT_S = 120.0
STATUS_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
MOST_LOST_ANSWERS = 10
MAX_SERVER_DEATHS = 3  # At one step: then it is the step, and not the machine.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's minimum; the arrays take another way.


def train_on_ray(
    task: ServerTask, worker: str, watch: Watch, *, address: str, on_step: OnStep | None = None
) -> Outcome:
    """Train with a server actor and worker actors; blocks, and calls `watch` now and then.

    Args:
        task: The run; its secret is made here.
        worker: The worker class, as ``module:class``.
        watch: Whoever looks on.
        address: "local" for a Ray of our own, or the address of a cluster.
        on_step: Called for every step, in order, in this thread; the steps do not wait for it
            unless it falls far behind. Where a server dies, views that it had not yet handed out
            may be missing.

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
        task = replace(task, crew=crew, is_watched=on_step is not None)
        supervisor = _Supervisor(ray, task, worker, is_local=address == "local")
        try:
            return supervisor.run(watch, Delivery(on_step) if on_step else None)
        finally:
            supervisor.end()


def examine_ray() -> dict[str, float]:
    """Start a Ray of our own and end it: how long that takes, and how nice its workers are."""
    refuse_shadowing(__name__)
    started = time.monotonic()
    with _ray("local", num_cpus=1) as ray:
        start_s = time.monotonic() - started
        found = ray.get(ray.remote(_niceness).remote(), timeout=START_TIMEOUT_S)
    return {"ray_start_s": round(start_s, 2), "worker_niceness": found}


def _niceness() -> int:
    return os.nice(0)


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
    """Put back the handler of SIGTERM that `ray.init` replaces by its own.

    Ray's processes are started deaf to SIGHUP, which a terminal that closes sends to them too: this
    process takes it, and has the run saved.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    except SystemExit as ended:
        if ended.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None  # What Ray's own handler made of a SIGTERM.
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


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


class _Supervisor:
    """Keeps one server and its workers running until the run has ended.

    A dead worker's actor is started again by Ray, and told again whom to serve. A dead server is
    started as a new incarnation that goes on from the last durable state; its workers follow it.
    """

    def __init__(self, ray: Any, task: ServerTask, worker: str, *, is_local: bool) -> None:
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
        worker_class = ray.remote(
            # On a Ray of our own nobody else asks for room; in a cluster more workers than there is
            # room for wait until there is.
            num_cpus=0 if is_local else 1,
            max_restarts=-1,
            runtime_env=environment,
        )(WorkerActor)
        self._fleet = Fleet(ray, lambda: worker_class.remote(task.worker, worker, task.chaos))
        self._wish = Wish(task.record.run)
        self._server: Any = None
        self._ordered_deaths = self._count_ordered_deaths()
        self._known_messages = 0  # Of the present server.

    def run(self, watch: Watch, delivery: Delivery | None) -> Outcome:
        """Run the server to its end, as often as it dies on the way."""
        incarnation, deaths, last_step = 0, 0, -1
        self._wish.begin(self._task.crew.num_workers)
        self._fleet.scale(self._task.crew.num_workers)
        while True:
            step = last_step
            try:
                training = self._start_server(incarnation)
                while not self._has_ended(training, delivery, incarnation):
                    self._follow_the_wish()
                    step = self._look(watch, step)
                outcome: Outcome = self._get(training, "training to end", START_TIMEOUT_S)
                self._look(watch, step)
            except _ServerDied as death:
                # Ray says so too where only its answer was lost: two must not train.
                self._end_server()
                if not self._was_ordered():
                    deaths = deaths + 1 if step == last_step else 1
                last_step, incarnation = step, incarnation + 1
                if deaths >= MAX_SERVER_DEATHS:
                    raise ClusterError(
                        f"the server died {deaths} times at step {max(step, 0)}: {death}; "
                        "what is durable is kept, look at the memory and the disk of its node"
                    ) from None
            else:
                if delivery:
                    delivery.end()
                return outcome

    def end(self) -> None:
        """End all processes of this run, also those that do not answer."""
        self._wish.end()
        self._fleet.end()
        self._end_server()

    def _end_server(self) -> None:
        with contextlib.suppress(Exception):  # Already dead, or never there, is as good.
            self._ray.kill(self._server)

    def _start_server(self, incarnation: int) -> Any:
        self._server = self._server_class.remote(self._task, self._worker, incarnation)
        self._known_messages = 0
        self._fleet.serve(self._ask("address", "the server to start", START_TIMEOUT_S))
        return self._server.train.remote()

    def _has_ended(self, training: Any, delivery: Delivery | None, incarnation: int) -> bool:
        """Has training ended? Waits a little, and delivers what there is to see meanwhile."""
        if delivery is None:
            return bool(self._ray.wait([training], timeout=LOOK_S)[0])
        deadline = time.monotonic() + LOOK_S
        while True:
            has_ended = bool(self._ray.wait([training], timeout=0)[0])
            left_s = max(0.0, deadline - time.monotonic())
            views = self._ask("take_views", "the views of steps", STATUS_TIMEOUT_S, left_s)
            if not delivery.deliver(views, incarnation):
                self._ask("stop_views", "the server to take the wish to stop", STOP_TIMEOUT_S)
            if has_ended or not left_s:
                return has_ended

    def _look(self, watch: Watch, step: int) -> int:
        """Show where the run is, and pass a wish to stop on; the step it is at."""
        try:
            known = self._known_messages
            seen = self._ask("status", "the server's status", STATUS_TIMEOUT_S, known)
            self._known_messages = seen.num_messages
            wants_stop = watch(seen)
            step = seen.step
            self._fleet.look(seen.members)
        except ExchangeTimeoutError as silence:
            # A stopped process (SIGSTOP) would stay so for ever.
            self._end_server()
            raise _ServerDied(str(silence)) from None
        except KeyboardInterrupt:
            wants_stop = True
        if wants_stop:
            self._ask("request_stop", "the server to take the wish to stop", STOP_TIMEOUT_S)
        return step

    def _follow_the_wish(self) -> None:
        """Have as many workers as somebody wants by now."""
        try:
            wanted = self._wish.changed()
        except RunError as error:
            message, wanted = f"passed over: {error}", None
        else:
            message = f"{wanted} workers are wanted, there were {len(self._fleet)}"
            if wanted is None:
                return
        self._ask("note", "the server to take a message", STATUS_TIMEOUT_S, message)
        if wanted is not None:
            self._ask("expect", "the server to take a number", STATUS_TIMEOUT_S, wanted)
            self._fleet.scale(wanted)

    def _was_ordered(self) -> bool:
        """Did the server die by a fault on purpose? Then it is not the step."""
        before, self._ordered_deaths = self._ordered_deaths, self._count_ordered_deaths()
        return before != self._ordered_deaths

    def _count_ordered_deaths(self) -> int:
        chaos = self._task.chaos
        return sum("worker" not in entry for entry in chaos.log.read()) if chaos else 0

    def _ask(self, method: str, waited_for: str, timeout_s: float, *arguments: Any) -> Any:
        """Call a method that answers beside the loop; again where Ray lost the call or the answer.

        Each of them may be called twice.
        """
        call = getattr(self._server, method).options(concurrency_group="status")
        for _ in range(MOST_LOST_ANSWERS):
            with contextlib.suppress(_Unavailable):
                return self._get(call.remote(*arguments), waited_for, timeout_s)
            time.sleep(LOOK_S)
        return self._get(call.remote(*arguments), waited_for, timeout_s)

    def _get(self, ref: Any, waited_for: str, timeout_s: float) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(ref, timeout=timeout_s)
        except exceptions.GetTimeoutError:
            raise ExchangeTimeoutError(waited_for, timeout_s) from None
        except exceptions.ActorUnavailableError as error:
            raise _Unavailable(str(error)) from None
        except exceptions.RayActorError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, DistSGDError):
                raise cause from None
            raise _ServerDied(str(error)) from None
        except exceptions.RayTaskError as error:
            raise cause_of(error) from None


class _ServerDied(Exception):  # noqa: N818 -- how an incarnation ends; never leaves this module.
    """The server's process is gone."""


class _Unavailable(_ServerDied):
    """Ray did not get through to the server, or the answer not back; it may be gone, or not."""
