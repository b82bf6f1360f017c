"""Statistics of features and the standardising made from them; pure, no I/O.

Letters: N rows, I features.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from distsgd.data.options import Standardise

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per-feature statistics of training rows; `deviation` is the population's (divided by N)."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def shift_and_scale(self, kind: Standardise) -> tuple[Float64, Float64]:
        """The two of ``x' = (x - shift) / scale``; a constant feature has scale 1.

        Returns:
            Shapes ``[I]`` and ``[I]``.
        """
        mean, deviation, minimum, maximum = (
            np.array(getattr(self, f.name), np.float64) for f in fields(self)
        )
        if kind == "none":
            return np.zeros_like(mean), np.ones_like(mean)
        # Rounding can give a constant feature a tiny deviation: its extremes tell. Shifted by the
        # value itself it is 0.
        constant = minimum == maximum
        shift = np.where(constant, minimum, mean) if kind == "mean_std" else minimum
        scale = deviation if kind == "mean_std" else maximum - minimum
        return shift, np.where(constant | (scale == 0.0), 1.0, scale)


class RunningStatistics:
    """Statistics of rows that come in pieces.

    Pieces are merged in the order they come (Chan, Golub, LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances", 1979): equal pieces in equal order give
    equal bits.
    """

    def __init__(self, num_features: int) -> None:
        self.num_rows = 0
        self._mean = np.zeros(num_features)
        self._squares = np.zeros(num_features)
        self._minimum = np.full(num_features, np.inf)
        self._maximum = np.full(num_features, -np.inf)

    def add(self, x_NI: Float64) -> None:
        """Take in rows; shape ``[N, I]``, C order, N may be 0."""
        count = len(x_NI)
        if count == 0:
            return
        mean = x_NI.sum(axis=0) / count
        deviation = x_NI - mean
        np.multiply(deviation, deviation, out=deviation)
        total = self.num_rows + count
        delta = mean - self._mean
        self._mean += delta * (count / total)
        self._squares += deviation.sum(axis=0) + delta * delta * (self.num_rows * (count / total))
        np.minimum(self._minimum, x_NI.min(axis=0), out=self._minimum)
        np.maximum(self._maximum, x_NI.max(axis=0), out=self._maximum)
        self.num_rows = total

    def result(self) -> Statistics:
        """Statistics of all rows so far, at least one."""
        assert self.num_rows > 0, "the caller refuses data without training rows"
        return Statistics(
            mean=tuple(self._mean.tolist()),
            deviation=tuple(np.sqrt(self._squares / self.num_rows).tolist()),
            minimum=tuple(self._minimum.tolist()),
            maximum=tuple(self._maximum.tolist()),
        )


def standardise_inplace(x_NI: Float64, shift_I: Float64, scale_I: Float64) -> None:
    """``x = (x - shift) / scale`` in float64; the caller looks for infinities."""
    with np.errstate(over="ignore"):
        np.subtract(x_NI, shift_I, out=x_NI)
        np.divide(x_NI, scale_I, out=x_NI)
