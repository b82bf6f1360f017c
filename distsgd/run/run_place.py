"""Where a run is kept, and what is said of one that has nothing there."""

from __future__ import annotations

from pathlib import Path

from distsgd.base.locations import Location, place_argument
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.run.run_files import CHECKPOINTS_GONE
from distsgd.store.run_directory import RunDirectory


def absolute(place: Path | Location) -> Path | Location:
    """The same, wherever it is looked at from."""
    return place if isinstance(place, Location) else place.absolute()


def run_place(given: object, config: TrainConfig, rows: object) -> Path | Location | None:
    """Where a run is to be kept, from the argument; None where it was not said.

    Raises:
        ConfigError: It is no place, or object storage where the run cannot be kept there.
    """
    if given is None:
        return None
    run_dir, problems = absolute(place_argument("run_dir", given)), []
    if isinstance(run_dir, Path):
        return run_dir
    if rows is not None:
        problems.append(
            f"run_dir is {run_dir}, and the rows are in memory; must be a directory, where they "
            "are kept (or write them to a Parquet file, and name it in [data] path)"
        )
    if run_dir.scheme == "hdfs":
        problems.append(
            f"run_dir is {run_dir}; must not be on hdfs, where what names a run's files is not "
            "replaced as a whole, and a death in between would lose the run (use s3, or a disk)"
        )
    if config.parallel.observer:
        problems.append(
            f"run_dir is {run_dir}, and parallel.observer is set; must be a directory, where an "
            "observer writes (or leave out --inject and [parallel] observer)"
        )
    if problems:
        raise ConfigError(problems)
    return run_dir


def why_no_checkpoint(directory: RunDirectory) -> str:
    """What is wrong with a run that has none, and what to do."""
    none_yet = "has no checkpoint yet"
    if not directory.result_path.is_file():
        return f"{none_yet}; train it first, or let it train on to its first one"
    ended = directory.read_json(directory.result_path)
    if ended.get("status") == "diverged":
        step = ended.get("steps")
        return f"{none_yet}; it diverged at step {step}; train again with a smaller learning rate"
    return f"is finished, but {CHECKPOINTS_GONE}" if ended.get("status") == "done" else none_yet
