"""Comparing what came of blocks: to the bit, or as far as rounding goes. No I/O here.

Shape letter: N samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, permutation
from distsgd.models.rehearsal import Found

ROWS_ALONE = 8


def some_rows(count: int) -> Array:
    """The first, the last, and some between."""
    between = permutation(0, Purpose.PROBE, 4, size=count)[: ROWS_ALONE - 2]
    return np.unique([0, count - 1, *between])


def equal(a: Array, b: Array) -> bool:
    """The same bits."""
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def differs(first: Found, second: Found) -> str:
    """What of two computings of a block has other bits; "" where nothing."""
    named: dict[str, Callable[[Found], Array | None]] = {
        "losses": lambda it: it.losses_N,
        "outputs": lambda it: it.outputs_NO,
        "gradients": lambda it: it.gradient_P,
        "norms": lambda it: it.squared_norms_N,
    }
    for name, part in named.items():
        a, b = part(first), part(second)
        if a is not None and b is not None and not equal(a, b):
            return name
    return ""


def first_apart(found_N: Array, wanted_N: Array, close: float) -> int | None:
    """The first row whose numbers are further apart than rounding makes them."""
    scale = max(float(np.abs(wanted_N).max()), np.finfo(np.float64).tiny)
    apart_N = ~(np.abs(found_N - wanted_N) <= close * np.maximum(np.abs(wanted_N), close * scale))
    return int(apart_N.argmax()) if apart_N.any() else None
