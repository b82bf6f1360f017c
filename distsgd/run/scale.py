"""Another number of workers, while a run trains."""

from __future__ import annotations

from pathlib import Path

from distsgd.parallel.launch.worker_actors import DesiredWorkers
from distsgd.store.run_directory import RunDirectory


def scale(run: Path, num_workers: int) -> int:
    """Ask the driver that trains `run` to have `num_workers` workers from now on.

    Returns:
        How many were wanted before.

    Raises:
        RunError: There is no run, no process of this machine trains it on Ray, or the number is
            none that can be.
    """
    return DesiredWorkers(RunDirectory.open(run).path).ask(num_workers)
