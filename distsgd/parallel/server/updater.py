"""The rule of a run with its state: from the sum of a mini-batch's gradients to moved weights.

Between `training` and `distsgd.optim`. Walks the weights in chunks, so that a step touches main
memory once. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distsgd.base.arrays import Array
from distsgd.optim.chunks import CHUNK_LENGTH, chunks
from distsgd.optim.rules import UpdateRule
from distsgd.optim.search import SearchRule


class Updater:
    """Applies an update rule to the weights that it was made with.

    Attributes:
        search_rule: The rule, where it is one that asks for losses only; `apply` is not called.
        state: What the rule keeps between two steps, by name.
        num_updates: Updates that `state` has seen; int64, shape ``[1]``, an array so that it can be
            rolled back together with the state.
    """

    def __init__(self, rule: UpdateRule | SearchRule, weights: Array) -> None:
        self.search_rule: SearchRule | None = None
        if isinstance(rule, SearchRule):
            self.search_rule = rule
        else:
            self._update_rule = rule
        self._weights = weights
        self._mean = np.zeros(min(CHUNK_LENGTH, weights.size), weights.dtype)  # Of one chunk.
        self.state = rule.init(weights)
        self.num_updates = np.zeros(1, np.int64)

    @property
    def live(self) -> dict[str, Array]:
        """Everything that an update changes, by name."""
        return {"weights": self._weights, "num_updates": self.num_updates, **self.state}

    def apply(
        self, gradient_sum: Sequence[Array], count: int, *, factor: float, rate: float
    ) -> None:
        """Move the weights by the mean gradient times `factor`, chunk by chunk.

        Args:
            gradient_sum: Of all samples of the mini-batch, by `chunks`.
            count: Samples of the mini-batch.
            factor: What clipping left of the gradient; 1 for all of it.
            rate: The learning rate.
        """
        weights, scalar, num_updates = self._weights, self._weights.dtype.type, self.num_updates
        # The mean over a power of two is the same bits as a product, which is twice as fast.
        divide, by = (
            (np.divide, scalar(count)) if count & (count - 1) else (np.multiply, scalar(1 / count))
        )
        for chunk, sum_of_chunk in zip(chunks(weights.size), gradient_sum, strict=True):
            mean = divide(sum_of_chunk, by, out=self._mean[: len(sum_of_chunk)])
            if factor != 1.0:
                mean *= scalar(factor)
            self._update_rule.update_inplace(
                weights[chunk],
                mean,
                state={name: array[chunk] for name, array in self.state.items()},
                learning_rate=rate,
                num_updates=int(num_updates[0]),
            )
        num_updates += 1
