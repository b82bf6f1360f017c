"""A program of JAX over given arrays.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distsgd.base.arrays import Array
from distsgd.models.jax.device import Compiled
from distsgd.models.jax.sizes import Padded


class JaxBound:
    """See `distsgd.models.Bound`.

    Args:
        run: The program.
        weights: ``[P]``.
        rows: Samples and targets.
        num_rows: N, how many of them count.
        slots: The gradients ``[P]``, as views in the shapes of the parameters; none without.
        key: The data of the block's key, uint32 ``[2]``; None without chance.
    """

    def __init__(
        self,
        run: Compiled,
        weights: Array,
        rows: tuple[Padded, Padded],
        num_rows: int,
        slots: Sequence[Array],
        key: Array | None,
    ) -> None:
        self._run, self._weights, self._slots, self._key = run, weights, slots, key
        (self._x, self._target), self._num_rows = rows, np.array(num_rows, np.int32)
        self._found: Any = None  # Gradients and norms between `forward` and `backward`.
        self.squared_norms_N: Array | None = None
        self.losses_N = self.outputs_NO = np.empty(0)

    def forward(self) -> None:
        """Losses and outputs; with gradients bound these too, which `backward` hands out."""
        found = self._run(
            self._weights, self._x.current(), self._target.current(), self._num_rows, self._key
        )
        losses, outputs, *self._found = found
        count = int(self._num_rows)
        self.losses_N = np.asarray(losses)[:count]
        self.outputs_NO = np.asarray(outputs)[:count]

    def backward(self) -> None:
        """Gradient sums into the slot."""
        assert self._found, "gradients are bound, and come of a forward each"
        gradients, norms = self._found
        for slot, gradient in zip(self._slots, gradients, strict=True):
            np.copyto(slot, np.asarray(gradient))
        # Their memory serves the next program: pages that are new cost more than the copy.
        self._found = None
        if norms is not None:
            self.squared_norms_N = np.asarray(norms)[: int(self._num_rows)]
