"""Hot and cold: learning without a derivative, by trying. No I/O here.

At each step one weight is tried a little higher and a little lower, and moves to where the loss is
smaller; it stays where both are equally good. The weights take turns. It moves by its whole step
even where staying would be better, so at the end it swings around the goal (Trask, "Grokking Deep
Learning", 2019, chapter 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsgd.base.arrays import Array


@dataclass(frozen=True, slots=True)
class CoordinateSearch:
    """The rule with steps of `step_size`; it holds no state.

    Examples:
        >>> CoordinateSearch(0.25).moved(np.float64(0.5), up_loss=3.0, down_loss=2.0)
        np.float64(0.25)
    """

    step_size: float

    def init(self, weights: Array) -> dict[str, Array]:  # noqa: ARG002 -- as the other rules.
        """No state."""
        return {}

    def up(self, weight: np.floating[Any]) -> Any:
        """`weight` a step higher, in its own dtype."""
        return weight + weight.dtype.type(self.step_size)

    def down(self, weight: np.floating[Any]) -> Any:
        """`weight` a step lower, in its own dtype."""
        return weight - weight.dtype.type(self.step_size)

    def moved(self, weight: np.floating[Any], *, up_loss: float, down_loss: float) -> Any:
        """Where `weight` goes; a loss that is not a number never wins."""
        up, down = ((math.isnan(loss), loss) for loss in (up_loss, down_loss))
        if up < down:
            return self.up(weight)
        return self.down(weight) if down < up else weight
