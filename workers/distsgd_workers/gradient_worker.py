"""The worker of every model: runs its program on a block.

It knows layers and rows; not the optimiser, the server, the configuration or Ray.

Legend: N samples, O outputs, P parameters.
"""

from __future__ import annotations

import numpy as np

from distsgd.base.arrays import Array
from distsgd.models.protocol import Bound
from distsgd.parallel.worker import Batch, BlockResult, BlockWorker, Seen, WorkerSpec


class GradientWorker(BlockWorker):
    """Computes blocks by backpropagation; the model's programs are bound to their arrays once."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self._program = spec.model.program(
            spec.sampler.blocking.block_rows, np.dtype(spec.dtype), per_sample=spec.per_sample
        )
        self._weights_P: Array | None = None
        # With the gradient it writes, since the key has only that array's identity.
        self._bound: dict[tuple[int, int, bool, int], tuple[Bound, Array | None]] = {}

    def compute_block(
        self, batch: Batch, weights_P: Array, gradient_P: Array | None
    ) -> BlockResult:
        """Forward, and backward where a gradient is asked for."""
        bound = self._bind(batch, weights_P, gradient_P)
        bound.forward()
        if gradient_P is not None:
            bound.backward()
        return BlockResult(bound.losses_N, bound.squared_norms_N, bound.outputs_NO)

    def view(self, batch: Batch, weights_P: Array) -> Seen:
        """Predictions and deltas, with what training leaves to chance."""
        bound = self._bind(batch, weights_P, None)
        bound.forward()
        target = batch.target.copy()
        return Seen(*self.spec.model.seen(bound.outputs_NO, target), target)

    def _bind(self, batch: Batch, weights_P: Array, gradient_P: Array | None) -> Bound:
        """The program on the arrays of `batch`."""
        if weights_P is not self._weights_P:  # Another server's memory.
            self._bound.clear()
            self._weights_P = weights_P
        key = (batch.buffer, batch.num_rows, batch.is_test, id(gradient_P))
        found = self._bound.get(key)
        if found is None:
            bound = self._program.bind(
                batch.inputs,
                batch.target,
                weights=weights_P,
                gradients=gradient_P,
                x_squared_norms=None if gradient_P is None else batch.x_squared_norms_N,
                keys=None if batch.is_test else batch.keys_N,
            )
            found = self._bound[key] = (bound, gradient_P)
        return found[0]
