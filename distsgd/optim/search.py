"""Search rules: how the weights move where no gradient is asked for, only losses. No I/O here.

The alternative to `distsgd.optim.rules.UpdateRule`: coordinate search, random search,
simultaneous perturbation (Spall, 1992). A rule tries weights, measures the loss of the mini-batch
with them, and leaves the weights where they shall be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array


@dataclass(frozen=True, slots=True)
class LossProbe:
    """The loss of the present mini-batch, for a search rule to measure.

    Attributes:
        measure: The sum of the losses of the mini-batch's samples with the weights as they are at
            the call; float64. The workers compute it, so it blocks, and costs a forward pass.
        first: The same sum with the weights as they were when the step began.
        num_samples: Of the mini-batch; a sum divided by it is the mean loss.
    """

    measure: Callable[[], float]
    first: float
    num_samples: int


@runtime_checkable
class SearchRule(Protocol):
    """What the server needs of a rule that asks for losses only; a rule itself holds no state."""

    def init(self, weights: Array) -> dict[str, Array]:
        """State before the first step: arrays by name, of any shape, which a checkpoint keeps."""
        ...

    def rate(self, scheduled: float) -> float:
        """The rate of a step, as the history shows it: `scheduled`, or a step size of its own."""
        ...

    def search_inplace(
        self,
        weights: Array,
        probe: LossProbe,
        *,
        step: int,
        free: NDArray[np.int64],
        state: Mapping[str, Array],
        learning_rate: float,
    ) -> None:
        """Move `weights` by one step.

        It must be a function of its arguments alone: what is left to chance is keyed by `step`.

        Args:
            weights: Shape ``[P]``; changed, also while it searches. Frozen ones are put back.
            probe: Measures the loss with the weights as they are.
            step: Updates made before, from 0.
            free: The places of the weights that may move, in order; not empty.
            state: What `init` gave; its arrays are changed.
            learning_rate: What :meth:`rate` made of the schedule's rate for this step.
        """
        ...
