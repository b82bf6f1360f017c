"""What a run says of rows: loss and accuracy of held-out or new ones, predictions of new ones.

In this process, without Ray. Legend: N rows, O outputs, K numbers or classes of a label, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.base.arrays import Array
from distsgd.base.files import staging_path
from distsgd.base.settings import path_argument
from distsgd.data.node_cache import DataPlace
from distsgd.data.tables import lists_array
from distsgd.errors import DataError, DiskError, ModelError
from distsgd.nn.losses import num_correct
from distsgd.parallel.messages import RequestKind
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.pool.pool import PoolSettings, Work, WorkerPool
from distsgd.parallel.runner import make_runner
from distsgd.parallel.transport.interface import BufferLayout
from distsgd.run.own_code import check_found_again
from distsgd.run.rows import NewRows
from distsgd.run.rule_and_sampler import evaluation_spec
from distsgd.run.source import label_problem

if TYPE_CHECKING:
    from distsgd.run.run import Run


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over `rows` rows; `test_accuracy` is None where the labels are no classes.

    Of rows with several classes it is the share of all of them that are right.
    """

    test_loss: float
    test_accuracy: float | None
    rows: int


def evaluate_held_out(saved: Run, data: DataPlace) -> Evaluation:
    """On the rows that training held out, in the same blocks and the same tree. Blocks.

    The same bits as during training. Only network, worker and blocks are needed: the modules of
    rule and sampler may be gone.

    Args:
        saved: A run that held some out.
        data: Its prepared rows.
    """
    with one_blas_thread():
        if saved.own.worker is None:
            check_found_again(saved.directory, "worker")
        spec = evaluation_spec(saved.config, data, saved.manifest, saved.model)
        worker = saved.own.worker or saved.config.parallel.worker
        layout = BufferLayout(saved.model.num_parameters, 1, saved.config.train.dtype)
        pool = WorkerPool(
            layout,
            make_runner(worker, spec),
            transport=None,
            settings=PoolSettings("all", step_timeout_s=math.inf),
        )
        np.copyto(pool.weights, saved.weights_P)
        partition = spec.sampler.blocking.evaluation(saved.manifest.test_rows)
        sums = pool.gather(Work(RequestKind.EVALUATE, 0, partition)).sums
    accuracy = _accuracy(saved, sums.correct, sums.num_samples)
    return Evaluation(sums.loss_sum / sums.num_samples, accuracy, sums.num_samples)


def _accuracy(saved: Run, correct: int, num_rows: int) -> float | None:
    manifest = saved.manifest
    if manifest.label_kind != "class":
        return None
    return correct / (num_rows * math.prod(manifest.target_shape))


def evaluate_rows(saved: Run, rows: NewRows) -> Evaluation:
    """On rows with labels, in blocks of `block_rows`. Blocks.

    Raises:
        DataError: A row or a label cannot be used.
    """
    losses, correct, num_rows = [], 0, 0
    is_class = saved.manifest.label_kind == "class"
    weights_P, block_rows = saved.weights_P, saved.config.parallel.block_rows
    program = saved.model.program(block_rows, weights_P.dtype, per_sample=False)
    usable = label_problem(saved.model)
    with one_blas_thread():
        for x_NI, target in rows.pieces(labels="required", label_problem=usable):
            assert target is not None
            for x, labels in _blocks(saved, x_NI, target):
                bound = program.bind(x, labels, weights=weights_P)
                bound.forward()
                losses.append(float(bound.losses_N.sum(dtype=np.float64)))
                if is_class:
                    correct += num_correct(bound.outputs_NO, labels)
            num_rows += len(x_NI)
    return Evaluation(math.fsum(losses) / num_rows, _accuracy(saved, correct, num_rows), num_rows)


def as_target(saved: Run, target: Array) -> Array:
    """Targets as the loss takes them: classes one-hot, with an axis more, for one of numbers."""
    if saved.model.target_kind == "number" and saved.manifest.label_kind == "class":
        ones: Array = np.eye(saved.manifest.num_targets, dtype=saved.config.train.dtype)[target]
        return ones
    return target


def _blocks(saved: Run, x_NI: Array, target: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of rows in the shapes that the network takes."""
    target = as_target(saved, target)
    size = saved.config.parallel.block_rows
    for first in range(0, len(x_NI), size):
        rows = slice(first, first + size)
        yield x_NI[rows].reshape(-1, *saved.model.input_shape), target[rows]


def outputs_of(saved: Run, rows: NewRows) -> Array:
    """What the network says of each row, ``[N, O]``: see `Network.predict`. Blocks."""
    with one_blas_thread():
        return np.concatenate(list(_outputs(saved, rows)))


def labels_of(saved: Run, outputs: Array) -> Array:
    """The label of each row: classes, as they were named, or numbers, ``[N, *target_shape]``.

    Of one class or number a row ``[N]``.

    Args:
        saved: The run.
        outputs: Of its network, ``[N, *target_shape]``, of classes with C as one more axis.
    """
    manifest = saved.manifest
    if manifest.label_kind == "class":
        of_each: Array = np.array(manifest.class_names)[outputs.argmax(axis=-1)]
        return of_each
    return outputs[:, 0] if manifest.target_shape == (1,) else outputs


def check_probabilities(saved: Run) -> None:
    """Raises ModelError where the outputs of the network are no probabilities."""
    if not saved.model.has_probabilities:
        if (factory := saved.config.model.factory) is not None:
            raise ModelError(
                f"{factory} gives scores, which are no probabilities; use predict() for the labels,"
                " or have the factory return a third thing, what makes probabilities of scores, "
                "and train anew (such as lambda out: out.softmax(-1) for classes)"
            )
        raise ModelError(
            f"loss {saved.model.loss_name!r} gives scores, which are no probabilities; use "
            "predict() for the labels, or train with a loss of probabilities, such as "
            '"softmax_cross_entropy"'
        )


def write_predictions(saved: Run, rows: NewRows, out: Path | str) -> int:
    """Write a row of predictions to the Parquet file `out` for each row; how many. Blocks.

    Raises:
        DataError: The rows cannot be used, or `out` exists.
        DiskError: `out` cannot be written.
    """
    out = _free_file(out)
    staging, num_rows = staging_path(out), 0
    writer: pq.ParquetWriter | None = None
    try:
        with one_blas_thread():
            for outputs in _outputs(saved, rows):
                table = _table(saved, outputs)
                writer = writer or pq.ParquetWriter(staging, table.schema, write_page_checksum=True)
                writer.write_table(table)
                num_rows += len(table)
        if writer is not None:
            writer.close()
            staging.rename(out)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); make room, or name another file"
        raise DiskError(out, reason) from error
    finally:
        staging.unlink(missing_ok=True)
    return num_rows


def _outputs(saved: Run, rows: NewRows) -> Iterator[Array]:
    weights_P, shape = saved.weights_P, saved.model.input_shape
    for x_NI, _ in rows.pieces(labels="ignored"):
        yield saved.model.predict(weights_P, x_NI.reshape(-1, *shape))


def _free_file(out: Path | str) -> Path:
    out = path_argument("out", out)
    if out.suffix != ".parquet":
        raise DataError(out, "is no name for a Parquet file; --out must end in .parquet")
    if out.exists():
        raise DataError(out, "exists already; name a new file for the predictions")
    if not out.parent.is_dir():
        raise DataError(out, "its directory does not exist; make it, or name another file")
    return out


def _table(saved: Run, outputs: Array) -> Any:
    """Predictions as a table: labels as those of training, lists where these were lists."""
    manifest = saved.manifest
    num_labels = len(manifest.target_names)
    if manifest.label_kind == "number":
        outputs_NK = np.ascontiguousarray(outputs.reshape(len(outputs), -1))
        if len(manifest.labels) < num_labels:
            return pa.table({manifest.labels[0]: lists_array(outputs_NK)})
        columns = zip(manifest.labels, outputs_NK.T, strict=True)
        return pa.table({name: np.ascontiguousarray(column) for name, column in columns})
    outputs_MC = outputs.reshape(-1, outputs.shape[-1])  # M classes of all rows.
    best_M = outputs_MC.argmax(axis=1)
    found = {
        "prediction": pa.array(manifest.class_names).take(pa.array(best_M)),
        "probability" if saved.model.has_probabilities else "score": pa.array(
            outputs_MC[np.arange(len(best_M)), best_M]
        ),
        "outputs": lists_array(outputs_MC),
    }
    if manifest.target_shape:
        found = {
            name: pa.FixedSizeListArray.from_arrays(values, num_labels)
            for name, values in found.items()
        }
    return pa.table(found)
