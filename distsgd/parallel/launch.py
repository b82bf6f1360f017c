"""How a run is launched: with a server in a thread of this process, or on Ray."""

from __future__ import annotations

from distsgd.parallel.chaos.injection import DriverFaults
from distsgd.parallel.in_process import train_in_process
from distsgd.parallel.server.job import Outcome, ServerTask, Status
from distsgd.parallel.server.step_view import OnStep
from distsgd.parallel.watch import Watch


def launch(
    task: ServerTask, worker: str, watch: Watch, *, address: str, on_step: OnStep | None = None
) -> Outcome:
    """Make the run: without workers in a thread of this process, else on the Ray at `address`.

    Blocks. `on_step` is called for every step: without workers in the thread that trains, so that
    the run waits for it and ends at the very step at which it raises an error; on Ray in this
    thread, a little behind the run.

    Raises:
        DistSGDError: What `ParameterServer.train` raises, and ClusterError where Ray or a worker is
            missing.
    """
    if task.chaos:
        watch = _watched_by(DriverFaults(task.chaos), watch)
    if not task.crew.num_workers:
        return train_in_process(task, worker, watch, on_step=on_step)
    from distsgd.parallel.cluster.cluster import train_on_ray  # noqa: PLC0415 -- loads Ray.

    return train_on_ray(task, worker, watch, address=address, on_step=on_step)


def _watched_by(faults: DriverFaults, watch: Watch) -> Watch:
    def look(status: Status) -> bool:
        faults(status.step)
        return watch(status)

    return look
