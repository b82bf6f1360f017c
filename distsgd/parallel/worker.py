"""What a worker is: it reads the rows of a block and computes its gradient sum.

The seam for models, losses and data of one's own. All else of a worker's step stands in `runner`.
Most workers derive from `BlockWorker`, which gathers rows of the prepared data set from
memory-mapped shards into two sets of arrays, so that the rows of the next step are read while the
server works. A worker knows neither optimiser nor server nor Ray.

Legend: N samples, I inputs, O outputs, P parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, raw_integers, row_keys_inplace
from distsgd.data.dataset import DataSet
from distsgd.data.node_cache import DataPlace
from distsgd.data.sampler import Block, RowOrder, Sampler
from distsgd.errors import ModelError, ShardError
from distsgd.models.protocol import Model
from distsgd.nn.losses import num_correct
from distsgd.parallel.messages import Sums

if TYPE_CHECKING:
    from distsgd.parallel.numerics import Profile


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to know to compute any block of a run; the same for every worker."""

    data: DataPlace  # A prepared data set.
    model: Model
    sampler: Sampler
    dtype: str
    seed: int
    per_sample: bool
    has_classes: bool  # Are the labels classes, so that an answer can be right or wrong?
    num_test_rows: int
    profile: Profile | None = None  # Of the process that started the run; None: any will do.


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
        """Predictions and deltas ``[N, O]`` of the rows of a training block; weights ``[P]``."""


@dataclass(slots=True)
class Batch:
    """The rows of one block, in arrays that stay the same while the rows in them change.

    Attributes:
        buffer: 0 or 1: with `num_rows` it says which arrays these are.
        num_rows: N.
        is_test: Held-out rows, else training rows.
        x_NI: Features, of the run's dtype.
        inputs: The same, ``[N, *input_shape]``.
        target: int64 ``[N, *target_shape]`` for classes; of the run's dtype for numbers, and for
            classes as ones among zeros.
        x_squared_norms_N: ``|x|²`` of each row; None unless `WorkerSpec.per_sample`.
        keys_N: uint64, random keys for the rows and this step, or ``[1]`` for the block: see
            `Model.chance`; None unless the model uses them. Of no meaning for held-out rows.
        row_numbers_N: int64, of the split.
    """

    buffer: int
    num_rows: int
    is_test: bool
    x_NI: Array
    inputs: Array
    target: Array
    x_squared_norms_N: Array | None
    keys_N: NDArray[np.uint64] | None
    row_numbers_N: NDArray[np.int64]


class BlockResult(NamedTuple):
    """What a block gives besides the gradient sum.

    Attributes:
        losses_N: Loss of each sample, ``[N]``.
        squared_norms_N: Squared norm of each sample's own gradient, ``[N]``; needed with a gradient
            where ``[statistics] per_sample`` is on.
        outputs_NO: Scores of the classes, ``[N, O]``; needed of held-out rows where labels are
            classes.
    """

    losses_N: Array
    squared_norms_N: Array | None = None
    outputs_NO: Array | None = None


class BlockWorker(ABC):
    """Reads blocks of the prepared data set; see `distsgd.parallel.worker.Worker`.

    A worker of one's own is one method, for instance the pinball loss of a linear model, whose
    weights are those of a ``[model]`` with one dense layer of one unit:

        import numpy as np

        from distsgd.parallel.worker import BlockResult, BlockWorker

        class MedianWorker(BlockWorker):
            quantile = 0.5

            def compute_block(self, batch, weights_P, gradient_P):
                x_NI = batch.x_NI
                error_N = batch.target[:, 0] - (x_NI @ weights_P[:-1] + weights_P[-1])
                slope_N = np.where(error_N > 0, -self.quantile, 1 - self.quantile)
                slope_N = slope_N.astype(x_NI.dtype)
                if gradient_P is not None:
                    gradient_P[:-1] = slope_N @ x_NI
                    gradient_P[-1] = slope_N.sum()
                squared_norms_N = slope_N**2 * ((x_NI**2).sum(axis=1) + 1)
                return BlockResult(-slope_N * error_N, squared_norms_N)

    In a file ``own_worker.py`` it is ``[parallel] worker = "own_worker:MedianWorker"``.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.data = _opened(spec.data)
        self.data_digest = self.data.manifest.digest
        self._arrays = (_arrays(spec, 0), _arrays(spec, 1))
        self._batches: dict[tuple[int, int], Batch] = {}

    @abstractmethod
    def compute_block(
        self, batch: Batch, weights_P: Array, gradient_P: Array | None
    ) -> BlockResult:
        """Losses of the rows of `batch`; their gradient *sum* goes into `gradient_P`.

        Args:
            batch: The rows.
            weights_P: ``[P]``, of the run's dtype, in the order of ``spec.model.parameters``. Read
                only.
            gradient_P: ``[P]``, of the same dtype. Overwritten; None where only losses are asked
                for.
        """

    def read(self, rows: BlockRows, buffer: int) -> Batch:
        """The rows of a block, gathered from the shards."""
        _, first, last = rows.block
        count = last - first
        batch = self._batches.get((buffer, count))
        if batch is None:
            batch = self._batches[buffer, count] = _first_rows(self._arrays[buffer], count)
        batch.is_test, numbers_N = rows.is_test, batch.row_numbers_N
        rows.numbers_inplace(numbers_N)
        split = self.data.test if rows.is_test else self.data.train
        split.gather_inplace(
            numbers_N,
            x_NI=batch.x_NI,
            target=batch.target,
            squared_norms_N=batch.x_squared_norms_N,
        )
        if batch.keys_N is not None and not rows.is_test:
            self._draw_keys(rows, numbers_N, batch.keys_N)
        return batch

    def _draw_keys(
        self, rows: BlockRows, numbers_N: NDArray[np.int64], keys_N: NDArray[np.uint64]
    ) -> None:
        seed = self.spec.seed
        if self.spec.model.chance == "block":
            number = rows.block.number
            keys_N[:] = raw_integers(seed, Purpose.BLOCK, rows.step, number, count=1)
            return
        row_keys_inplace(seed, Purpose.DROPOUT, rows.step, rows_N=numbers_N, keys_N=keys_N)

    def compute(self, batch: Batch, weights_P: Array, gradient_P: Array | None) -> Sums:
        """The sums over a block; see `Worker.compute`.

        Raises:
            ModelError: `compute_block` does not give what the run measures.
        """
        result, count = self.compute_block(batch, weights_P, gradient_P), batch.num_rows
        if not isinstance(result, BlockResult):
            raise self._wrong(f"gives a {type(result).__name__}; must be a BlockResult")
        self._check_shape("losses_N", result.losses_N, count)
        loss_sum = float(np.add.reduce(result.losses_N, dtype=np.float64))
        if batch.is_test:
            return Sums(count, loss_sum, self._num_correct(result.outputs_NO, batch.target))
        if gradient_P is None or not self.spec.per_sample:
            return Sums(count, loss_sum)
        norms_N = result.squared_norms_N
        if norms_N is None:
            raise self._wrong(
                "gives no squared_norms_N, which [statistics] per_sample measures (give them, or "
                "set it to false)"
            )
        self._check_shape("squared_norms_N", norms_N, count)
        norm_sum = float(np.add.reduce(norms_N, dtype=np.float64))
        return Sums(count, loss_sum, 0, norm_sum, float(np.maximum.reduce(norms_N)))

    def prefetch(self, rows: range) -> None:
        """Have the operating system read these neighbouring training rows; returns at once."""
        self.data.train.will_need(rows)

    def _num_correct(self, outputs_NO: Array | None, target: Array) -> int:
        """Places whose largest output is their class; 0 where the labels are no classes."""
        if not self.spec.has_classes:
            return 0
        if outputs_NO is None:
            raise self._wrong(
                "gives no outputs_NO of held-out rows, in which the right classes are counted "
                "(give them, or hold no rows out)"
            )
        return num_correct(outputs_NO, target)

    def _check_shape(self, name: str, found: object, count: int) -> None:
        shape = getattr(found, "shape", None)
        if shape != (count,):
            what = f"of shape {shape}" if shape is not None else f"as a {type(found).__name__}"
            raise self._wrong(f"gives {name} {what} for {count} rows; must be an array ({count},)")

    def _wrong(self, what: str) -> ModelError:
        return ModelError(f"{type(self).__name__}.compute_block {what}")


def _opened(data: DataPlace) -> DataSet:
    """The data set; where this node does not have it, the error names it and says what to share."""
    if isinstance(data, Path) and not data.exists():
        raise ShardError(
            data,
            f"is not on node {gethostname()}; prepare it to an address (distsgd data prepare ..."
            " --out s3://BUCKET/NAME) and train on that, or let --cache-dir, or [data] path, be on"
            " a disk that all nodes share",
        )
    return DataSet.open(data, verify=False)


def _arrays(spec: WorkerSpec, buffer: int) -> Batch:
    """Room for the rows of the largest block."""
    most, dtype, model = spec.sampler.blocking.block_rows, spec.dtype, spec.model
    x_NI = np.zeros((most, math.prod(model.input_shape)), dtype)
    target_dtype = np.int64 if model.target_kind == "class" else dtype
    num_keys = {"none": 0, "row": most, "block": 1}[model.chance]
    return Batch(
        buffer,
        most,
        is_test=False,
        x_NI=x_NI,
        inputs=x_NI.reshape(most, *model.input_shape),
        target=np.zeros((most, *model.target_shape), target_dtype),
        x_squared_norms_N=np.zeros(most, dtype) if spec.per_sample else None,
        keys_N=np.zeros(num_keys, np.uint64) if num_keys else None,
        row_numbers_N=np.zeros(most, np.int64),
    )


def _first_rows(arrays: Batch, count: int) -> Batch:
    names = ("x_NI", "inputs", "target", "x_squared_norms_N", "keys_N", "row_numbers_N")
    first: dict[str, Any] = {
        name: array[:count] for name in names if (array := getattr(arrays, name)) is not None
    }
    return replace(arrays, num_rows=count, **first)
