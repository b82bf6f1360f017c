"""Logarithms near 1 without cancellation, staged for gates. No I/O here.

Made of ``+ - x /`` and ``log`` only: numpy's float32 ``log1p`` gives other bits with AVX2 than with
AVX-512, these do not.

Everything near 1 rests on ``ln((1 + w) / (1 - w)) = 2 artanh w = 2w + w·tail(w²)``, where ``tail(y)
= 2y/3 + 2y²/5 + 2y³/7 + …``: for ``|w| <= 1/3``, which is a quotient from 1/2 to 2, few terms do.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from distsgd.autodiff.gate import Operation, constant
from distsgd.base.arrays import Array

# So many that what is left out, (1/9)^(n + 1) / (2n + 3) of the logarithm, is below a rounding.
_TERMS = {np.dtype(np.float32): 6, np.dtype(np.float64): 15}


def smallest(like: Array) -> float:
    """The smallest number above 0 of an array's dtype: added to a normal one it changes nothing."""
    return float(np.finfo(like.dtype).smallest_subnormal)


def stage_artanh_tail(w: Array, square: Array, tail: Array) -> list[Operation]:
    """Operations that write ``w²`` and ``tail(w²)``, good to a rounding for ``|w| <= 1/3``."""
    factors = [constant(2.0 / (2 * k + 3), w.dtype) for k in range(_TERMS[w.dtype])]
    operations: list[Operation] = [
        partial(np.multiply, w, w, square),
        partial(np.multiply, square, factors.pop(), tail),
    ]
    for factor in reversed(factors):
        operations += [
            partial(np.add, tail, factor, tail),
            partial(np.multiply, tail, square, tail),
        ]
    return operations


def stage_log1p_of_unit(x: Array, out: Array, square: Array, tail: Array) -> list[Operation]:
    """Operations for ``out = ln(1 + x)`` of `x` from 0 to 1, within 2 ulp; the others are scratch.

    ``1 + x`` is ``(1 + w) / (1 - w)`` with ``w = x / (2 + x)``.
    """
    return [
        partial(np.add, x, constant(2, x.dtype), out),
        partial(np.divide, x, out, out),
        *stage_artanh_tail(out, square, tail),
        partial(np.multiply, tail, out, tail),
        partial(np.add, out, out, out),
        partial(np.add, out, tail, out),
    ]


def stage_log_of_sum(
    large: Array, small: Array, out: Array, *, total: Array, log: Array, floor: float = 0.0
) -> list[Operation]:
    """Operations for ``out = ln(large + small)``, exact also where that is near ``ln 1``.

    What rounding takes from the sum is added to its logarithm: ``ln(t + r) = ln t + r/t``.

    Args:
        large: The summand of the larger size wherever the sum is near 1.
        small: The other one.
        out: Overwritten; no memory of the summands, nor are `total` and `log`.
        total: Overwritten with the sum.
        log: Scratch.
        floor: Added to the sum, so that the logarithm of 0 is finite; too small to change others.
    """
    return [
        partial(np.add, large, small, total),
        partial(np.subtract, total, large, out),
        partial(np.subtract, small, out, out),
        *([partial(np.add, total, constant(floor, total.dtype), total)] if floor else ()),
        partial(np.divide, out, total, out),
        partial(np.log, total, log),
        partial(np.add, out, log, out),
    ]
