"""The critical batch size, from how many steps each batch size took to reach a target.

``S(B) = S_min (1 + B_crit / B)`` steps and ``E(B) = E_min (1 + B / B_crit)`` samples, where
``E_min = S_min · B_crit`` (McCandlish et al., "An Empirical Model of Large-Batch Training", 2018,
arXiv:1812.06162; measured over many workloads by Shallue et al., 2019, arXiv:1811.03600). At the
critical batch size a run takes twice the fewest steps and twice the fewest samples. No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsgd.errors import ConfigError
from distsgd.statistics.censored import CensoredFit, fit_censored
from distsgd.statistics.intervals import LEVEL, Interval
from distsgd.statistics.student import student_quantile

Float64 = NDArray[np.float64]
_REACH = 64.0  # Times the largest batch size of the runs, and of the smallest, for the estimate.
_CELL = math.log(2.0) / 2
_PARTS, _ROUNDS = 8, 4  # Parts a cell is cut into, each time.


@dataclass(frozen=True, slots=True)
class CriticalBatch:
    """The fitted hyperbola.

    Attributes:
        batch: B_crit in samples. Its `low` is 0 where it may lie below the smallest batch size of
            the runs, its `high` ∞ where it may lie above the largest: nothing was measured there.
        min_steps: S_min, to the target with a batch of any size.
        min_samples: E_min, to the target with any number of steps.
        noise: Standard deviation of the logarithm of the steps of one run.
    """

    batch: Interval
    min_steps: float
    min_samples: float
    noise: float

    @property
    def is_bounded(self) -> bool:
        """Whether the runs enclose the critical batch size on both sides."""
        return self.batch.is_bounded

    def steps(self, batch: float) -> float:
        """S(B), the steps to the target with batches of `batch` samples."""
        return self.min_steps + self.min_samples / batch

    def samples(self, batch: float) -> float:
        """E(B), the samples to the target with batches of `batch` samples."""
        return batch * self.steps(batch)


def fit_critical_batch(
    batch_N: Float64, missed_N: Float64, met_N: Float64, *, level: float = LEVEL
) -> CriticalBatch:
    """Fit the hyperbola by maximum likelihood, with an interval by profile likelihood.

    The logarithm of a run's steps scatters by a normal noise of unknown scale, the same for all
    batch sizes, and is known only to lie between those of two evaluations: the cells of the grid
    of evaluations are part of the interval, and a run that ended before the target says "more".

    The interval holds each B_crit whose best likelihood is not below the best of all by more than
    ``n/2 · log(1 + t² / (n - 2))``, n being the runs that missed the target and then met it, t the
    quantile of Student's distribution with n - 2 degrees of freedom. For values known exactly that
    is the exact interval of a regression, up to its curvature (Seber and Wild, "Nonlinear
    Regression", 1989, chapter 5); the usual χ²/2 is its limit for many runs, and holds B_crit too
    rarely for few. That the noise is the same for all batch sizes is not critical: where it fell
    from 3 % to 1.3 %, as that of the gradients does, the interval held B_crit in 94 to 95 %.

    Args:
        batch_N: Samples a step of each run, shape ``[N]``.
        missed_N: Steps at the last evaluation that missed the target, shape ``[N]``; 0 where the
            first met it.
        met_N: Steps at the first evaluation that met it, shape ``[N]``; ∞ where none did.
        level: Probability that the interval holds B_crit.

    Raises:
        ConfigError: Fewer than three runs, or runs of one batch size only, missed and then met it.

    Examples:
        >>> batch = np.array([16.0, 32.0, 64.0, 128.0, 256.0, 512.0])
        >>> met = np.array([460.0, 245.0, 152.0, 98.0, 76.0, 62.0])
        >>> fit = fit_critical_batch(batch, met - 4, met)
        >>> round(fit.batch.low), round(fit.batch.mid), round(fit.batch.high)
        (121, 136, 151)
        >>> round(fit.min_steps), round(fit.steps(132.0)), fit.is_bounded
        (47, 96, True)
    """
    num_runs = _num_enclosed(batch_N, missed_N, met_N)
    t = student_quantile(level, num_runs - 2)
    profile = _Profile(batch_N, missed_N, met_N)
    found = profile.interval(num_runs / 2 * math.log1p(t * t / (num_runs - 2)))
    fit = profile.fit(np.log([found.mid]))
    min_steps, smallest, largest = math.exp(fit.location_C[0]), batch_N.min(), batch_N.max()
    # At the end of the search the curve is flat, or falls as 1 / B, as far as can be seen.
    is_flat = found.mid < 1.001 * smallest / _REACH
    is_steep = found.mid > 0.999 * largest * _REACH
    return CriticalBatch(
        Interval(
            0.0 if found.low < smallest else float(min(found.low, largest)),
            0.0 if is_flat else math.inf if is_steep else found.mid,
            math.inf if found.high > largest else float(max(found.high, smallest)),
        ),
        min_steps=0.0 if is_steep else min_steps,
        min_samples=0.0 if is_flat else min_steps * found.mid,
        noise=float(fit.scale_C[0]),
    )


def _num_enclosed(batch_N: Float64, missed_N: Float64, met_N: Float64) -> int:
    """How many runs missed the target and then met it; enough for a curve and its noise."""
    is_enclosed = np.isfinite(met_N) & (missed_N > 0)
    num_runs, num_sizes = int(is_enclosed.sum()), len(np.unique(batch_N[is_enclosed]))
    if num_runs < 3 or num_sizes < 2:
        found = f"{num_runs} runs of {num_sizes} batch sizes missed the target and then met it"
        rule = "it takes three, of two (lower the target, train for longer, evaluate more often)"
        raise ConfigError([f"{found}: {rule}"])
    return num_runs


class _Profile:
    """The best likelihood of the runs for each logarithm of B_crit."""

    def __init__(self, batch_N: Float64, missed_N: Float64, met_N: Float64) -> None:
        with np.errstate(divide="ignore"):
            self._low_N, self._high_N = np.log(missed_N), np.log(met_N)
        self._batch_N = np.log(batch_N)
        first, last = self._batch_N.min() - math.log(_REACH), self._batch_N.max() + math.log(_REACH)
        self._grid_C = np.linspace(first, last, math.ceil((last - first) / _CELL) + 1)

    def fit(self, logs_C: Float64) -> CensoredFit:
        """The other parameters, for each B_crit."""
        offset_CN = np.logaddexp(0.0, logs_C[:, None] - self._batch_N)
        return fit_censored(self._low_N, self._high_N, offset_CN)

    def interval(self, most_drop: float) -> Interval:
        """The best B_crit, with the least and the greatest that are worse by `most_drop`."""
        best, height = self._highest()
        outwards = self._grid_C[self._grid_C < best][::-1], self._grid_C[self._grid_C > best]
        low, high = (self._outermost(best, out_C, enough=height - most_drop) for out_C in outwards)
        return Interval(math.exp(low), math.exp(best), math.exp(high))

    def _highest(self) -> tuple[float, float]:
        """Where the profile is highest, and how high."""
        grid_C = self._grid_C
        for _ in range(_ROUNDS):
            height_C = self.fit(grid_C).log_likelihood_C
            at = int(height_C.argmax())
            best, height = float(grid_C[at]), float(height_C[at])
            first, last = grid_C[max(at - 1, 0)], grid_C[min(at + 1, len(grid_C) - 1)]
            grid_C = np.linspace(first, last, 2 * _PARTS + 1)
        return best, height

    def _outermost(self, inside: float, outwards_C: Float64, *, enough: float) -> float:
        """The last place on the way outwards from `inside` where the profile is high enough."""
        for _ in range(_ROUNDS):
            if not len(outwards_C):
                return inside
            (is_enough,) = np.nonzero(self.fit(outwards_C).log_likelihood_C >= enough)
            first_not = int(is_enough[-1]) + 1 if len(is_enough) else 0
            inside = float(outwards_C[first_not - 1]) if first_not else inside
            if first_not == len(outwards_C):
                return inside
            outwards_C = np.linspace(inside, outwards_C[first_not], _PARTS + 1)[1:]
        return (inside + float(outwards_C[0])) / 2
