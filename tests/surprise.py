"""How unlikely counts are if chance is what it should be: tests of randomness with an error rate.

A count of independent trials exceeds its mean by the Chernoff bound only with probability
``exp(-M KL(count / M || p))``. That holds for every M and p, so that a test that allows one in a
million false alarms in all its counts together has that error rate, and no approximation in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ERROR_RATE = 1e-6


def is_as_chance(counts: NDArray[Any], trials: int, p: float | NDArray[Any]) -> bool:
    """Could each of `counts` be the successes of `trials` independent trials of probability `p`?

    True for such counts but with probability `ERROR_RATE`, however many counts there are and
    however they depend on each other.
    """
    share = np.asarray(counts, np.float64) / trials
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(share > 0, share * np.log(share / p), 0.0)
        miss = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - np.asarray(p))), 0.0)
    return bool((trials * (hit + miss)).max() <= math.log(2 * share.size / ERROR_RATE))
