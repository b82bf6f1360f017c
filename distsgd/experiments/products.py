"""The proof of the product: some of its cells trained in full, with their workers.

The run is that of a learning cell, with workers, and ends at the step where that met the target:
its weights must have the same digest, and its seconds lie in the interval that the product gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distsgd.errors import DivergedError
from distsgd.experiments.learning_run import Learned
from distsgd.experiments.plan import Grid, LearningKey
from distsgd.experiments.timing import read_pairs
from distsgd.run.trainer import Trainer
from distsgd.statistics.intervals import Interval
from distsgd.statistics.student import student_quantile
from distsgd.store.logs import DigestLog, read_history
from distsgd.store.run_directory import RunDirectory

NUM_FULL_RUNS = 3
LEAST_S = 0.5
LEVEL = 1 - 0.05 / NUM_FULL_RUNS  # Of each interval: one of all three misses in 5 %.


class FullKey(NamedTuple):
    """One run in full: a learning run that met the target, and workers.

    A check is made for its bits, not for its time: all workers compute in every step.
    """

    learning: LearningKey
    workers: int
    is_check: bool = False

    @property
    def name(self) -> str:
        """Of its directory, below the experiment's."""
        kind = "checks" if self.is_check else "full"
        return f"{kind}/{self.learning.path}/workers-{self.workers}"


@dataclass(frozen=True, slots=True)
class FullRun:
    """A run in full next to what the product says of it.

    Attributes:
        seconds: See `training_seconds`; None: not made.
        expected: Steps times seconds a step, with the interval for one more run.
        num_digests: That were compared with those of the learning run.
        same_bits: Are they all equal?
    """

    key: FullKey
    seconds: float | None
    expected: Interval | None
    num_digests: int
    same_bits: bool

    @property
    def is_inside(self) -> bool:
        """Do its seconds lie in the interval?"""
        if self.seconds is None or self.expected is None:
            return False
        return self.expected.low <= self.seconds <= self.expected.high

    @property
    def holds(self) -> bool:
        """Do they, and are the bits the same?"""
        return self.same_bits and self.is_inside


def chosen_runs(cells: Sequence[tuple[FullKey, float]]) -> tuple[FullKey, ...]:
    """Which cells are run in full, of all with their expected seconds.

    The quickest with workers, the quickest without, and the slowest. Those of `LEAST_S` come first:
    below that the first steps of a run, which touch their memory for the first time and try who
    computes, are no small part of it.
    """
    ordered = sorted(cells, key=lambda cell: (cell[1] < LEAST_S, cell[1], cell[0]))
    with_workers = [key for key, _ in ordered if key.workers]
    without = [key for key, _ in ordered if not key.workers]
    picked = [*with_workers[:1], *without[:1]]
    slowest = sorted(cells, key=lambda cell: (-cell[1], cell[0]))
    left = [key for key, _ in slowest if key not in picked]
    return (*picked, *left[: NUM_FULL_RUNS - len(picked)])


@dataclass(frozen=True, slots=True)
class FullRuns:
    """Makes and reads the full runs of an experiment."""

    grid: Grid
    directory: Path
    cache_dir: str | None

    def make(self, key: FullKey, overrides: tuple[str, ...]) -> None:
        """Train it, unless it was. Blocks. Raises as `Trainer.fit`."""
        learned = Learned.read(self.directory, key.learning)
        assert learned.steps is not None, "only runs that met the target are made in full"
        config = self.grid.full_config(key.learning, workers=key.workers, steps=learned.steps)
        config = config.with_overrides(overrides) if key.workers else config
        config = config.with_overrides(["parallel.assignment=all"]) if key.is_check else config
        place = self.directory / key.name
        with suppress(DivergedError):  # Its directory says so, and its bits differ.
            Trainer(config, run_dir=place, cache_dir=self.cache_dir).fit(resume="auto")

    def is_made(self, key: FullKey) -> bool:
        """Has it come to an end?"""
        return bool(self._result(key))

    def read(self, key: FullKey) -> FullRun:
        """What its directory says, next to the pairs."""
        expected, result = self.expected(key), self._result(key)
        if not result:
            return FullRun(key, None, expected, 0, same_bits=True)
        run = RunDirectory.open(self.directory / key.name)
        seconds = None if key.is_check else training_seconds(read_history(run.history))
        learning = RunDirectory.open(self.directory / key.learning.name)
        ours, its = (dict(DigestLog(one.digests_path).read()) for one in (learning, run))
        common = [step for step in ours if step in its]
        at_end = learning.read_json(learning.result_path)["weights_digest"]
        is_equal = [ours[step] == its[step] for step in common]
        is_equal.append(result["weights_digest"] == at_end)
        return FullRun(key, seconds, expected, len(is_equal), same_bits=all(is_equal))

    def _result(self, key: FullKey) -> dict[str, Any]:
        """How it ended; empty where it has not, or was interrupted."""
        place = self.directory / key.name
        if not RunDirectory.is_run(place):
            return {}
        run = RunDirectory.open(place)
        result = run.read_result()
        return {} if result.get("status") == "interrupted" else result

    def expected(self, key: FullKey) -> Interval | None:
        """Steps of this run times seconds a step, for one more run: a prediction interval."""
        steps = Learned.read(self.directory, key.learning).steps
        seconds = step_seconds(self.grid, self.directory, key.learning.batch, key.workers)
        if steps is None or len(seconds) < 2:
            return None
        logs = np.log(seconds)
        spread = float(logs.std(ddof=1)) * math.sqrt(1 + 1 / len(logs))
        half, mid = student_quantile(LEVEL, len(logs) - 1) * spread, float(logs.mean())
        return Interval(*(steps * math.exp(mid + part) for part in (-half, 0.0, half)))


def training_seconds(history: Any) -> float | None:
    """Seconds of all steps of a run, the first counted as long as the others.

    The first touches its memory for the first time: some milliseconds that no step has again. None
    for a single row of history.
    """
    steps, seconds = (history[name].to_numpy() for name in ("step", "seconds"))
    if len(steps) < 2:
        return None
    return float((seconds[-1] - seconds[0]) / (steps[-1] - steps[0]) * steps[-1])


def step_seconds(grid: Grid, directory: Path, batch: int, workers: int) -> list[float]:
    """All that was measured of a step at this batch and number of workers, in seconds."""
    found = []
    for key in grid.timings:
        for pair in read_pairs(directory, key):
            if (key.batch, key.workers) == (batch, workers):
                found.append(pair.candidate.seconds)
            if (key.base_batch, 0) == (batch, workers):
                found.append(pair.baseline.seconds)
    return found
