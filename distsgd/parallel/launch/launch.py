"""How a run is launched: with a server in a thread of this process, or on Ray."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from functools import partial

from distsgd.base.named import name_of
from distsgd.errors import ConfigError, WaitTimeoutError
from distsgd.parallel.launch.nodes.placement import Placement
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.observer import Observer, ObserverContext, make_observer
from distsgd.parallel.runner import MakeWorker, make_runner
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import LOOK_S, Outcome, ServerSpec, Status, Watch
from distsgd.parallel.server.step_runner import NO_HOOKS, EventHooks

STOP_TIMEOUT_S = 60.0


def launch(
    spec: ServerSpec,
    worker: str | MakeWorker,
    watch: Watch,
    *,
    placement: Placement,
    hooks: EventHooks = NO_HOOKS,
) -> Outcome:
    """Make the run: without workers in a thread of this process, else on Ray by `placement`.

    Blocks. `hooks` are called with the events of the loop: without workers in the thread that
    trains, so that the run waits for them and ends at the very step at which one raises an error;
    on Ray in this thread, a little behind the run.

    `worker` is a class, or named ``module:class`` and found in each process that computes; a class
    without such a name (a notebook's, one made in a function) trains in this process only.

    Raises:
        ConfigError: There is no such worker, or it would have to be found in another process and
            has no name.
        DistSGDError: What `ParameterServer.train` raises, and ClusterError where Ray or a worker is
            missing.
    """
    observer = None
    if spec.observer is not None:
        context = ObserverContext(role="driver", run=spec.record.directory)
        observer = make_observer(spec.observer, context)
        watch = _observed(watch, observer)
    if spec.pool.num_workers == 0:
        return train_in_process(spec, worker, watch, hooks=hooks)
    name = worker if isinstance(worker, str) else name_of(worker)
    if name is None:
        problem = (
            f"parallel.workers is {spec.pool.num_workers} and other processes cannot import the "
            f"worker {worker}; move it into a module of its own, or train in this process (set "
            "[parallel] workers = 0)"
        )
        raise ConfigError([problem])
    from distsgd.parallel.launch.supervisor.on_ray import train_on_ray  # noqa: PLC0415 -- loads Ray.

    return train_on_ray(spec, name, watch, placement=placement, hooks=hooks, observer=observer)


def _observed(watch: Watch, observer: Observer) -> Watch:
    def look(status: Status) -> bool:
        observer.on_phase("on_status", status.step)
        return watch(status)

    return look


def train_in_process(
    spec: ServerSpec,
    worker: str | MakeWorker,
    watch: Watch,
    *,
    hooks: EventHooks = NO_HOOKS,
) -> Outcome:
    """Train in a thread of this process, which calls and awaits `hooks`; see `launch`."""
    with one_blas_thread():
        server = ParameterServer(spec, partial(make_runner, worker), hooks=hooks)
    ended: Future[Outcome] = Future()
    thread = threading.Thread(
        target=_train, args=(server, ended), name="distsgd-server", daemon=True
    )
    thread.start()
    try:
        _look_on(server, ended, watch)
    except KeyboardInterrupt:
        raise  # The second: the thread ends after its step, or with the process.
    except BaseException as error:
        server.request_stop()
        if not wait([ended], STOP_TIMEOUT_S).done:
            waited_for = f"the present step to end, after an error in a callback ({error})"
            raise WaitTimeoutError(waited_for, STOP_TIMEOUT_S) from error
        raise
    thread.join(STOP_TIMEOUT_S)  # It holds the data set until it is gone.
    return ended.result()


def _look_on(server: ParameterServer, ended: Future[Outcome], watch: Watch) -> None:
    """Show where the run is until it has ended; the second Ctrl-C does not wait for that."""
    known, is_stopping = 0, False
    # Not `join`: an interrupted one may take a living thread for dead (bpo-46726).
    while True:
        try:
            has_ended = bool(wait([ended], LOOK_S).done)
            status = server.status(known)
            known = status.num_messages
            if watch(status):
                is_stopping = True
                server.request_stop()
            if has_ended:
                return
        except KeyboardInterrupt:
            if is_stopping:
                raise
            is_stopping = True
            server.request_stop()


def _train(server: ParameterServer, ended: Future[Outcome]) -> None:
    """Train, as in a worker process with one BLAS thread for as long as it computes."""
    try:
        with one_blas_thread():
            ended.set_result(server.train())
    except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits.
        ended.set_exception(error)
