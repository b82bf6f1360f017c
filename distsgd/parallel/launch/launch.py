"""How a run is launched: with a server in a thread of this process, or on Ray."""

from __future__ import annotations

from distsgd.base.named import name_of
from distsgd.errors import ConfigError
from distsgd.lab.faults.injection import DriverFaults
from distsgd.parallel.launch.local_thread import train_in_process
from distsgd.parallel.launch.watch import Watch
from distsgd.parallel.runner import MakeWorker
from distsgd.parallel.server.spec import Outcome, ServerSpec, Status
from distsgd.parallel.server.step_view import OnStep


def launch(
    spec: ServerSpec,
    worker: str | MakeWorker,
    watch: Watch,
    *,
    address: str,
    on_step: OnStep | None = None,
) -> Outcome:
    """Make the run: without workers in a thread of this process, else on the Ray at `address`.

    Blocks. `on_step` is called for every step: without workers in the thread that trains, so that
    the run waits for it and ends at the very step at which it raises an error; on Ray in this
    thread, a little behind the run.

    `worker` is a class, or named ``module:class`` and found in each process that computes; a class
    without such a name (a notebook's, one made in a function) trains in this process only.

    Raises:
        ConfigError: There is no such worker, or it would have to be found in another process and
            has no name.
        DistSGDError: What `ParameterServer.train` raises, and ClusterError where Ray or a worker is
            missing.
    """
    if spec.chaos:
        watch = _watched_by(DriverFaults(spec.chaos), watch)
    if not spec.pool.num_workers:
        return train_in_process(spec, worker, watch, on_step=on_step)
    name = worker if isinstance(worker, str) else name_of(worker)
    if name is None:
        problem = (
            f"parallel.workers is {spec.pool.num_workers} and other processes cannot import the "
            f"worker {worker}; move it into a module of its own, or train in this process (set "
            "[parallel] workers = 0)"
        )
        raise ConfigError([problem])
    from distsgd.parallel.launch.on_ray import train_on_ray  # noqa: PLC0415 -- loads Ray.

    return train_on_ray(spec, name, watch, address=address, on_step=on_step)


def _watched_by(faults: DriverFaults, watch: Watch) -> Watch:
    def look(status: Status) -> bool:
        faults(status.step)
        return watch(status)

    return look
