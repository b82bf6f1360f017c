"""The norm of a gradient, and clipping by it; between the mean and the update rule. No I/O here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

# A sum of so many float32 squares by BLAS keeps about six digits; the pieces are added in float64.
_PIECE_LENGTH = 1 << 17


def squared_norm(vector: Array) -> float:
    """Sum of squares, the same bits every time under one numerics profile.

    Pieces are summed by BLAS in their own dtype and added in float64, left to right. Where squares
    overflow float32, all are taken in float64.

    Args:
        vector: Shape ``[P]``, contiguous.

    Examples:
        >>> squared_norm(np.array([3.0, 4.0], np.float32))
        25.0
        >>> squared_norm(np.full(4, 2.0**100, np.float32)) == 2.0**202
        True
    """
    total = 0.0
    for start in range(0, vector.size, _PIECE_LENGTH):
        piece = vector[start : start + _PIECE_LENGTH]
        # The same BLAS call as `np.dot`, without its warning: an overflow is looked after below.
        total += float(np.vdot(piece, piece))
    if math.isfinite(total) or vector.dtype == np.float64:
        return total
    return _squared_norm_wide(vector)


def clip_by_global_norm_inplace(mean_grad: Array, max_norm: float) -> float:
    """Scale `mean_grad` to the norm `max_norm` where it is longer.

    Pascanu et al., 2013, arXiv:1211.5063. A gradient that is not finite is left as it is, for the
    caller to see.

    Args:
        mean_grad: Shape ``[P]``; changed.
        max_norm: More than 0.

    Returns:
        The norm before clipping.

    Examples:
        >>> grad = np.array([3.0, 4.0])
        >>> clip_by_global_norm_inplace(grad, 2.5), grad.tolist()
        (5.0, [1.5, 2.0])
    """
    norm = math.sqrt(squared_norm(mean_grad))
    if max_norm < norm < math.inf:
        mean_grad *= mean_grad.dtype.type(max_norm / norm)
    return norm


def _squared_norm_wide(vector: Array) -> float:
    total = 0.0
    for start in range(0, vector.size, _PIECE_LENGTH):
        piece = vector[start : start + _PIECE_LENGTH].astype(np.float64)
        total += float(np.vdot(piece, piece))
    return total
