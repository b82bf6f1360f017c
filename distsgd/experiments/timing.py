"""Time: what a step takes at each batch size and number of workers, in pairs with one core.

A pair is the baseline and the candidate one after the other, in turn which comes first: what else
the machine does meets both. Each pair is a file, so that an experiment that was killed continues
with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distsgd.base.files import make_private_directory, read_json, write_json_atomic
from distsgd.experiments.environment import environment
from distsgd.experiments.plan import Grid, Piece, TimingKey
from distsgd.lab.standing_ray import standing_ray
from distsgd.lab.step_time import StepTime, time_steps
from distsgd.parallel.launch.session.address import chosen_address


@contextmanager
def workers_at(grid: Grid) -> Iterator[tuple[str, ...]]:
    """Settings of runs with workers: the cluster that is configured, or one Ray for all of them.

    Raises ClusterError where Ray does not start.
    """
    most = max(grid.workers)
    if most and chosen_address(grid.plan.config.parallel.address) == "local":
        with standing_ray(most + 1) as overrides:
            yield overrides
    else:
        yield ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two timings next to each other."""

    baseline: StepTime
    candidate: StepTime


def read_pairs(directory: Path, key: TimingKey) -> tuple[Pair, ...]:
    """Those of the experiment in `directory`, in the order in which they were made."""
    return tuple(_pair(read_json(file)) for file in _files(directory, key))


def _files(directory: Path, key: TimingKey) -> list[Path]:
    place = directory / key.name
    return sorted(place.glob("pair-*.json")) if place.is_dir() else []


def timed_in(grid: Grid, directory: Path) -> dict[str, str] | None:
    """Where the experiment in `directory` was timed: see `environment`; None where it was not."""
    files = (file for key in grid.timings for file in _files(directory, key))
    recorded: Iterator[dict[str, str] | None] = (read_json(it).get("environment") for it in files)
    return next((it for it in recorded if it is not None), None)


@dataclass(frozen=True, slots=True)
class Timing:
    """Makes the timings of an experiment; nothing else should run meanwhile.

    Attributes:
        data: The prepared data set.
        is_over: Asked between two pairs: has the time been spent?
        note: Told of each pair that was made.
    """

    grid: Grid
    directory: Path
    data: Path
    is_over: Callable[[], bool]
    note: Callable[[Piece], None]

    @property
    def is_made(self) -> bool:
        """Is no pair missing?"""
        return all(self._file(*it).is_file() for it in self._wanted())

    def run(self, overrides: tuple[str, ...]) -> None:
        """All pairs that are missing; the first of each cell before the second of any. Blocks.

        Args:
            overrides: Where workers are started: see `workers_at`.

        Raises:
            ClusterError: A worker is missing.
        """
        here = {"environment": environment(self.grid.plan.config.train.dtype)}
        for key, number in self._wanted():
            if self._file(key, number).is_file():
                continue
            if self.is_over():
                return
            pair = self._timed(key, number, overrides)
            make_private_directory(self._file(key, number).parent)
            write_json_atomic(self._file(key, number), asdict(pair) | here)
            self.note(Piece("timing", key.base_batch, f"{key.name} pair {number + 1}"))

    def _wanted(self) -> Iterator[tuple[TimingKey, int]]:
        for number in range(self.grid.plan.num_pairs):
            for key in self.grid.timings:
                yield key, number

    def _file(self, key: TimingKey, number: int) -> Path:
        return self.directory / key.name / f"pair-{number:03d}.json"

    def _timed(self, key: TimingKey, number: int, overrides: tuple[str, ...]) -> Pair:
        def timed(batch: int, workers: int) -> StepTime:
            config = self.grid.timing_config(batch, workers)
            config = config.with_overrides(overrides) if workers else config
            return time_steps(config, self.data, self.grid.plan.timed_s)

        base = key.base_batch
        if number % 2:
            candidate = timed(key.batch, key.workers)
            return Pair(timed(base, 0), candidate)
        return Pair(timed(base, 0), timed(key.batch, key.workers))


def _pair(values: dict[str, Any]) -> Pair:
    def timing(it: dict[str, Any]) -> StepTime:
        return StepTime(**it | {"assignment": tuple(it["assignment"])})

    return Pair(timing(values["baseline"]), timing(values["candidate"]))
