"""What a worker is: it reads the rows of a block and computes its gradient sum.

The seam for models, losses and data of one's own. All else of a worker's step stands in `runner`.
Most workers derive from `distsgd.parallel.block_worker.BlockWorker`, which reads the prepared data.
No I/O here.

Legend: N samples, O outputs, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.data.sampler import Block, RowOrder, Sampler
from distsgd.nn.model import Model
from distsgd.parallel.tree import Sums


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to know to compute any block of a run; the same for every worker."""

    data: Path  # A prepared data set.
    model: Model
    sampler: Sampler
    dtype: str
    seed: int
    per_sample: bool
    has_classes: bool  # Are the labels classes, so that an answer can be right or wrong?
    num_test_rows: int


class BlockRows(NamedTuple):
    """Which rows make up a block.

    Attributes:
        is_test: Rows that were held out, else training rows.
        step: The step that they are drawn for.
        block: Its number and places in the mini-batch. What is random in a block may be keyed by
            the step with these, or with the row, and by nothing else.
        order: Which training row has which place.
    """

    is_test: bool
    step: int
    block: Block
    order: RowOrder

    @property
    def num_rows(self) -> int:
        """N."""
        _, first, last = self.block
        return last - first

    def numbers_inplace(self, numbers_N: NDArray[np.int64]) -> None:
        """Write their numbers in the split, ascending; int64 ``[N]``."""
        _, first, last = self.block
        if self.is_test:
            numbers_N[:] = np.arange(first, last)
        else:
            self.order.rows_inplace(self.step, first, last, numbers_N)
            # A sum over rows in stored order is as good as any, and shards are read front to back.
            numbers_N.sort()


class Seen(NamedTuple):
    """What a worker saw of the rows of a training step, in block order; arrays of its own."""

    predictions_BO: Array
    deltas_BO: Array  # Gradient of each row's own loss by the network's output.
    targets: Array


class Worker(Protocol):
    """Computes blocks of one run; made as ``MyWorker(spec)`` in each process that computes.

    A pure function of rows and weights: any worker may be asked for any block, at any time, again,
    and must give the same bits.

    Attributes:
        data_digest: Of the data that it reads; the workers of a run must agree in it.
    """

    data_digest: str

    def read(self, rows: BlockRows, buffer: int) -> Any:
        """Read the rows of a block; what is returned is handed to `compute`.

        Args:
            rows: Which rows.
            buffer: 0 or 1. What was read into the other one may still be used, what was read into
                this one will not be: a worker with two sets of arrays need not allocate.
        """

    def compute(self, batch: Any, weights_P: Array, gradient_P: Array | None) -> Sums:
        """Loss sum and gradient *sum* over the rows of a block.

        Args:
            batch: What `read` returned.
            weights_P: ``[P]``, of the run's dtype. Read only; the values change between calls.
            gradient_P: ``[P]``, of the same dtype. Overwritten with the sum over the samples, not
                the mean; None where losses only are asked for.

        Returns:
            The number of samples, the float64 sum of their losses; of held-out rows also how many
            answers are correct, and with a gradient, where `WorkerSpec.per_sample`, the sum and the
            largest of the per-sample gradients' squared norms.
        """

    def prefetch(self, rows: range) -> None:
        """These neighbouring training rows are drawn soon; a hint that needs no answer."""


@runtime_checkable
class Viewer(Worker, Protocol):
    """A worker that can also show what a step looks like from inside."""

    def view(self, batch: Any, weights_P: Array) -> Seen:
        """Predictions and deltas of the rows of a training block."""
