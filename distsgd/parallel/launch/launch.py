"""How a run is launched: with a server in a thread of this process, or on Ray."""

from __future__ import annotations

from distsgd.base.named import name_of
from distsgd.errors import ConfigError
from distsgd.parallel.launch.local_thread import train_in_process
from distsgd.parallel.launch.watch import Watch
from distsgd.parallel.observer import Observer, ObserverContext, make_observer
from distsgd.parallel.runner import MakeWorker
from distsgd.parallel.server.metrics import Outcome
from distsgd.parallel.server.spec import ServerSpec, Status
from distsgd.parallel.server.step_view import NO_OBSERVERS, Observers


def launch(
    spec: ServerSpec,
    worker: str | MakeWorker,
    watch: Watch,
    *,
    address: str,
    observers: Observers = NO_OBSERVERS,
) -> Outcome:
    """Make the run: without workers in a thread of this process, else on the Ray at `address`.

    Blocks. `observers` are called with the events of the loop: without workers in the thread that
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
    observer = make_observer(spec.observer, ObserverContext(role="driver", run=spec.record.run))
    if observer is not None:
        watch = _observed(watch, observer)
    if not spec.pool.num_workers:
        return train_in_process(spec, worker, watch, observers=observers)
    name = worker if isinstance(worker, str) else name_of(worker)
    if name is None:
        problem = (
            f"parallel.workers is {spec.pool.num_workers} and other processes cannot import the "
            f"worker {worker}; move it into a module of its own, or train in this process (set "
            "[parallel] workers = 0)"
        )
        raise ConfigError([problem])
    from distsgd.parallel.launch.on_ray import train_on_ray  # noqa: PLC0415 -- loads Ray.

    return train_on_ray(spec, name, watch, address=address, observers=observers, observer=observer)


def _observed(watch: Watch, observer: Observer) -> Watch:
    def look(status: Status) -> bool:
        observer.on_phase("on_status", status.step)
        return watch(status)

    return look
