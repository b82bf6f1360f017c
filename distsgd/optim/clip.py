"""The norm of a gradient, and clipping by it; between the mean and the update rule. No I/O here.

A flat vector is walked in chunks that stay in the cache from one operation to the next. What is
done to it element by element gives the same bits chunk by chunk; done so, a step touches main
memory once where it would otherwise once an operation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from distsgd.base.arrays import Array

# Large, as each chunk costs a microsecond an operation; small enough for a core's own cache to hold
# the chunks of weights, sum and state that a step works on. Part of the bits of a squared norm.
CHUNK_LENGTH = 1 << 16
# Squares that vanish in float32 are below 1e-38: a hundred million of them are a millionth of this.
_LEAST = 1e-24


@lru_cache(maxsize=64)
def chunks(length: int) -> tuple[slice, ...]:
    """Slices of at most `CHUNK_LENGTH` that cover ``range(length)`` in order.

    >>> chunks(70_000)
    (slice(0, 65536, None), slice(65536, 70000, None))
    """
    starts = range(0, length, CHUNK_LENGTH)
    return tuple(slice(start, min(start + CHUNK_LENGTH, length)) for start in starts)


def squared_norm(vector: Array) -> float:
    """Sum of squares, the same bits every time under one numerics profile.

    Spans are summed by BLAS in their own dtype and added in float64, left to right. Where squares
    overflow or vanish in float32, all are taken in float64.

    Args:
        vector: Shape ``[P]``, contiguous.

    Examples:
        >>> squared_norm(np.array([3.0, 4.0], np.float32))
        25.0
        >>> squared_norm(np.full(4, 2.0**100, np.float32)) == 2.0**202
        True
        >>> squared_norm(np.full(4, 2.0**-100, np.float32)) == 2.0**-198
        True
    """
    total = 0.0
    for chunk in chunks(vector.size):
        total += chunk_squared_norm(vector[chunk])
    return total if keeps_digits(total, vector.dtype) else _squared_norm_wide(vector)


def keeps_digits(total: float, dtype: np.dtype[Any]) -> bool:
    """Whether a sum of squares taken in `dtype` is as exact as it could be by a wider one.

    In float32 not where squares overflowed, nor where many may be below the smallest number.
    """
    return dtype == np.float64 or _LEAST <= total < math.inf


def chunk_squared_norm(chunk: Array) -> float:
    """Sum of squares of one of the `chunks` ``[Q]`` of a vector; infinite where it overflows.

    A sum of so many float32 squares by BLAS keeps about six digits.
    """
    # The same BLAS call as `np.dot`, without its warning: an overflow is looked after.
    return float(np.vdot(chunk, chunk))


def clip_factor(norm: float, max_norm: float) -> float:
    """What scales a gradient of `norm` to `max_norm` where it is longer; 1 elsewhere.

    Pascanu et al., 2013, arXiv:1211.5063. A norm that is not finite is left for the caller to see.

    >>> clip_factor(5.0, 2.5), clip_factor(5.0, 10.0)
    (0.5, 1.0)
    """
    return max_norm / norm if max_norm < norm < math.inf else 1.0


def _squared_norm_wide(vector: Array) -> float:
    total = 0.0
    for chunk in chunks(vector.size):
        wide = vector[chunk].astype(np.float64)
        total += chunk_squared_norm(wide)
    return total
