"""A worker that computes nothing: what remains of a step is what a step costs.

Legend: P parameters.
"""

from __future__ import annotations

from distsgd.base.arrays import Array
from distsgd.parallel.messages import Sums
from distsgd.parallel.worker import BlockRows, WorkerSpec


class EmptyWorker:
    """Gives a sum of zeros for every block; see `distsgd.parallel.worker.Worker`."""

    data_digest = ""

    def __init__(self, spec: WorkerSpec) -> None:
        """Nothing of `spec` is looked at."""

    def read(self, rows: BlockRows, buffer: int) -> None:
        """Nothing is read."""

    def compute(self, batch: None, weights_P: Array, gradient_P: Array | None) -> Sums:  # noqa: ARG002 -- not looked at.
        """Zeros, of one sample."""
        if gradient_P is not None:
            gradient_P.fill(0)
        return Sums(1, 0.0)

    def prefetch(self, rows: range) -> None:
        """Nothing is read."""
