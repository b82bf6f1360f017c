"""Domains: which numbers a loss is defined for. No I/O here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.errors import ModelError

_ADVICE = "scale the targets, end the network with another activation, or choose another loss"


@dataclass(frozen=True, slots=True)
class Domain:
    """The numbers from `lowest` to `highest`; `lowest` itself only where it is not `above` it.

    >>> Domain(0.0, 1.0).rule, Domain(0.0).rule, Domain(0.0, above=True).rule
    ('from 0 to 1', '0 or more', 'above 0')
    """

    lowest: float = -math.inf
    highest: float = math.inf
    above: bool = False

    @property
    def rule(self) -> str:
        """In words, after "must be"."""
        if self.above:
            return f"above {self.lowest:g}"
        if self.highest < math.inf:
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"{self.lowest:g} or more" if self.lowest > -math.inf else "a number"

    def holds(self, values: Array) -> bool:
        """Are all of `values` inside? Allocates nothing, so that it is cheap for very many.

        Not-a-number is inside: a run that has diverged is told apart elsewhere.
        """
        if not values.size or self == EVERY_NUMBER:
            return True
        low, high = np.fmin.reduce(values, None), np.fmax.reduce(values, None)
        return (
            not (low <= self.lowest if self.above else low < self.lowest)
            and not high > self.highest
        )

    def outside(self, values: Array) -> NDArray[np.bool_]:
        """Which of `values` are outside, in their shape."""
        below = values <= self.lowest if self.above else values < self.lowest
        return np.asarray(below | (values > self.highest))

    def check(self, gate: str, what: str, values: Array, advice: str = _ADVICE) -> None:
        """Raises `ModelError` with the first of `values` that is outside, and `advice`."""
        if not self.holds(values):
            index = tuple(int(i) for i in np.argwhere(self.outside(values))[0])
            raise ModelError(
                f"{gate} got the {what} {values[index]:.9g} at {list(index)}; must be {self.rule} "
                f"({advice})"
            )


EVERY_NUMBER = Domain()
NOT_NEGATIVE = Domain(0.0)
POSITIVE = Domain(0.0, above=True)
UNIT_INTERVAL = Domain(0.0, 1.0)
