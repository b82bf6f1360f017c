"""The course of a run: losses, samples and seconds over its steps, from its history. No I/O here.

Legend: S rows of the history, after one of zeros for no step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.errors import ConfigError
from distsgd.statistics.intervals import Interval, median_interval
from distsgd.store.logs import EvaluationRow

MOST_POINTS = 60
MOST_ROUNDS = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, and where the run was then; None where no history says so.

    Attributes:
        seconds: Spent until then, without the evaluation itself.
    """

    step: int
    samples: int | None
    seconds: float | None
    test_loss: float | None
    test_accuracy: float | None


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Mean training loss of the steps since the point before, at the last of them."""

    samples: int
    seconds: float
    train_loss: float


@dataclass(frozen=True, slots=True)
class Course:
    """A history as vectors, with a first row of zeros: after no step. S rows."""

    step_S: Floats
    epoch_S: Floats
    samples_S: Floats
    seconds_S: Floats
    loss_S: Floats
    noise_S: Floats

    @classmethod
    def of(cls, history: Any) -> Course:
        """From a table of `HistoryRow`."""
        names = ("step", "epoch", "samples", "seconds", "train_loss", "noise_scale")
        columns = (history[name].to_numpy().astype(np.float64) for name in names)
        return cls(*(np.concatenate([[0.0], column]) for column in columns))

    def samples_at(self, step: int) -> int | None:
        """Samples seen after `step` updates; None where there is no history."""
        found = self._at(step, self.samples_S)
        return None if found is None else round(found)

    def _at(self, step: int, values_S: Floats) -> float | None:
        """The value after `step`; between two rows and after the last one by the nearest slope."""
        if len(self.step_S) < 2:
            return None
        after = min(int(np.searchsorted(self.step_S, step)), len(self.step_S) - 1)
        low, high = max(after - 1, 0), max(after, 1)
        share = (step - self.step_S[low]) / (self.step_S[high] - self.step_S[low])
        return float(values_S[low] + share * (values_S[high] - values_S[low]))

    def evaluated(self, row: EvaluationRow) -> Evaluated:
        """The evaluation with its place on the way."""
        seconds = self._at(row.step, self.seconds_S)
        place = row.step, self.samples_at(row.step), seconds
        return Evaluated(*place, row.test_loss, row.test_accuracy)

    def last_loss(self) -> float | None:
        """Mean training loss over the samples of the last pass."""
        is_last_S = self.epoch_S[1:] > self.epoch_S[-1] - 1.0 + 1e-9
        samples = np.diff(self.samples_S)[is_last_S]
        if not len(samples):
            return None
        mean = float(np.average(self.loss_S[1:][is_last_S], weights=samples))
        return mean if np.isfinite(mean) else None

    def losses(self, most_points: int = MOST_POINTS) -> tuple[LossPoint, ...]:
        """At most `most_points`, each the mean over the samples since the one before."""
        num_rows = len(self.step_S) - 1
        ends = np.unique(np.linspace(0, num_rows, min(most_points, num_rows) + 1).astype(int))
        samples_S = np.diff(self.samples_S)
        points = []
        for first, last in pairwise(ends):
            part = slice(first, last)
            mean = float(np.average(self.loss_S[1:][part], weights=samples_S[part]))
            if np.isfinite(mean):
                point = int(self.samples_S[last]), float(self.seconds_S[last]), mean
                points.append(LossPoint(*point))
        return tuple(points)

    def step_seconds(self, evaluated: Sequence[int]) -> tuple[Interval | None, str]:
        """Median seconds a step, over rounds of the history; or None, and why.

        The time from a row to the next holds the evaluations after the first of them: such gaps
        are left out, as is the one before the first row, which is the start of the run. What is
        left is cut into at most `MOST_ROUNDS` rounds, since neighbouring steps are alike.
        """
        starts_S, ends_S = self.step_S[1:-1], self.step_S[2:]
        marks = np.sort(np.asarray(evaluated, np.float64))
        is_pure_S = np.searchsorted(marks, starts_S) == np.searchsorted(marks, ends_S)
        seconds = np.diff(self.seconds_S[1:])[is_pure_S]
        steps = (ends_S - starts_S)[is_pure_S]
        cuts = np.unique(np.linspace(0, len(steps), MOST_ROUNDS + 1).astype(int))
        rounds = [
            float(seconds[first:last].sum() / steps[first:last].sum())
            for first, last in pairwise(cuts)
        ]
        try:
            return median_interval(np.array(rounds)), ""
        except ConfigError:
            return None, f"too few steps without an evaluation in between ({len(steps)})"
