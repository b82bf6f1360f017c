"""Coordinate search: learning without a derivative, by trying. No I/O here.

At each step one weight is tried a little higher and a little lower, and moves to where the loss is
smaller; it stays where both are equally good. The weights take turns. It moves by its whole step
even where staying would be better, so at the end it swings around the goal ("hot and cold
learning": Trask, "Grokking Deep Learning", 2019, chapter 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.errors import ConfigError
from distsgd.optim.search import LossProbe


@dataclass(frozen=True, slots=True)
class CoordinateSearch:
    """The rule with steps of `step_size`, a `distsgd.optim.search.SearchRule` without state.

    Raises:
        ConfigError: `step_size` is no number above 0.

    Examples:
        >>> weights = np.array([0.5])
        >>> probe = LossProbe(lambda: float(weights[0] ** 2), first=0.25, num_samples=1)
        >>> CoordinateSearch(0.25).search_inplace(
        ...     weights, probe, step=0, free=np.array([0]), state={}, learning_rate=0.25
        ... )
        >>> weights.tolist()
        [0.25]
    """

    step_size: float = 0.001

    def __post_init__(self) -> None:
        step_size: object = self.step_size
        is_number = isinstance(step_size, int | float) and not isinstance(step_size, bool)
        if not (is_number and 0.0 < self.step_size < math.inf):
            rule = "must be a number above 0 (set step_size in [optimizer] options)"
            raise ConfigError([f"step_size of coordinate search is {step_size!r}; {rule}"])

    def init(self, weights: Array) -> dict[str, Array]:  # noqa: ARG002 -- as the other rules.
        """No state, whatever the `weights` ``[P]``."""
        return {}

    def rate(self, scheduled: float) -> float:  # noqa: ARG002 -- it has a step of its own.
        """The step size."""
        return self.step_size

    def search_inplace(
        self,
        weights: Array,
        probe: LossProbe,
        *,
        step: int,
        free: NDArray[np.int64],
        state: Mapping[str, Array],  # noqa: ARG002 -- as the other rules.
        learning_rate: float,
    ) -> None:
        """See `SearchRule.search_inplace`; a loss that is not a number never wins."""
        place = int(free[step % len(free)])
        here, size = weights[place], weights.dtype.type(learning_rate)
        tried = []
        for there in (here + size, here - size):
            weights[place] = there
            loss = probe.measure()
            tried.append((math.isnan(loss), loss))
        up, down = tried
        weights[place] = here + size if up < down else here - size if down < up else here
