"""The quantile of Student's t, which small samples need. No I/O here."""

from __future__ import annotations

import math
from functools import lru_cache

_HALVINGS = 60  # Of the quarter circle: more than the bits of a float64.


@lru_cache(maxsize=256)
def student_quantile(level: float, degrees: int) -> float:
    """The t for which ``P(|T| <= t) = level``, T being Student's with `degrees` of freedom.

    The probability is a finite sum in the angle ``atan(t / √degrees)`` (Abramowitz and Stegun,
    "Handbook of Mathematical Functions", 1964, 26.7.3 and 26.7.4), and the angle is found by
    bisection.

    Args:
        level: Above 0 and below 1.
        degrees: 1 or more.

    Examples:
        >>> [round(student_quantile(0.95, degrees), 3) for degrees in (1, 2, 9, 30)]
        [12.706, 4.303, 2.262, 2.042]
    """
    assert 0.0 < level < 1.0, "a probability"
    assert degrees >= 1, "one value more than there are means"
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _probability_within(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _probability_within(angle: float, degrees: int) -> float:
    """``P(|T| <= √degrees · tan(angle))``."""
    cos, total, odd = math.cos(angle), 0.0, degrees % 2
    term = cos if odd else 1.0
    for power in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cos * cos * (power - 1) / power
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
