"""What a trained run says of rows: evaluation on held-out or new rows, and predictions.

In this process, without Ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.base.arguments import path_argument
from distsgd.base.arrays import Array
from distsgd.base.atomic_files import staging_path
from distsgd.data.manifest import Manifest
from distsgd.data.prepare.prepare import read_features
from distsgd.data.sources.csv_settings import with_given
from distsgd.errors import DataError, DiskError, RunError
from distsgd.parallel.messages import RequestKind
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.pool.autotuner import Planner
from distsgd.parallel.pool.pool import Work, WorkerPool
from distsgd.parallel.runner import make_runner
from distsgd.parallel.transport.buffers import BufferLayout
from distsgd.run.label_check import label_problem
from distsgd.run.saved import SavedRun
from distsgd.run.spec import make_run_spec


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over `rows` rows; `test_accuracy` is None where the labels are no classes."""

    test_loss: float
    test_accuracy: float | None
    rows: int


def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    cache_dir: Path | None = None,
    csv: Sequence[str] = (),
) -> Evaluation:
    """Loss and accuracy of `run` on the rows of `data`, or on its own held-out rows. Blocks.

    A CSV file is read with the settings of the run, but for those in `csv` (``"separator=;"``).

    Raises:
        RunError: `run` is no trained run, or has no held-out rows and no `data` is given.
        DataError: The rows cannot be used.
    """
    saved = SavedRun.load(run)
    cache_dir = None if cache_dir is None else path_argument("cache_dir", cache_dir)
    if data is None and not saved.manifest.test_shards:
        raise RunError(run, "held no rows out; name a file with --data")
    with one_blas_thread():
        if data is None:
            return _evaluate_held_out(saved, saved.data(cache_dir))
        return _evaluate_file(saved, data, csv)


def predict(run: Path, data: Path, out: Path, *, csv: Sequence[str] = ()) -> int:
    """Write a row of predictions to the Parquet file `out` for every row of `data`; how many.

    Blocks.

    For classes the columns are ``prediction`` (the class, as it was named), its ``probability``,
    from 0 to 1, or where the loss has no probabilities (`Model.has_probabilities`) its ``score``,
    and ``outputs``, one such number a class; for numbers, one column for each label column.

    Raises:
        RunError: `run` is no trained run.
        DataError: The rows cannot be used, or `out` exists.
        DiskError: `out` cannot be written.
    """
    out = path_argument("out", out)
    if out.suffix != ".parquet":
        raise DataError(out, "is no name for a Parquet file; --out must end in .parquet")
    if out.exists():
        raise DataError(out, "exists already; name a new file for the predictions")
    if not out.parent.is_dir():
        raise DataError(out, "its directory does not exist; make it, or name another file")
    saved = SavedRun.load(run)
    staging, num_rows = staging_path(out), 0
    writer: pq.ParquetWriter | None = None
    try:
        with one_blas_thread():
            for x_NI, _, _ in read_features(data, _reading(saved, csv), labels="ignored"):
                table = _predictions(saved, x_NI)
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


def _reading(saved: SavedRun, csv: Sequence[str]) -> Manifest:
    """How new rows are read: as the run's own, but for what is given."""
    return replace(saved.manifest, csv=with_given(saved.manifest.csv, csv))


def _evaluate_held_out(saved: SavedRun, data: Path) -> Evaluation:
    """On the rows that training held out, in the same blocks and the same tree.

    The same bits as during training.
    """
    run_spec = make_run_spec(saved.config, data, saved.manifest)
    layout = BufferLayout(saved.model.num_parameters, 1, saved.config.train.dtype)
    pool = WorkerPool(
        layout,
        make_runner(saved.config.parallel.worker, run_spec.worker_spec()),
        transport=None,
        planner=Planner("all"),
        incarnation=0,
        step_timeout_s=math.inf,
    )
    np.copyto(pool.weights, saved.weights_P)
    partition = run_spec.sampler.blocking.evaluation(saved.manifest.test_rows)
    sums = pool.gather(Work(RequestKind.EVALUATE, 0, partition)).sums
    accuracy = sums.correct / sums.num_samples if saved.manifest.label_kind == "class" else None
    return Evaluation(sums.loss_sum / sums.num_samples, accuracy, sums.num_samples)


def _evaluate_file(saved: SavedRun, data: Path, csv: Sequence[str]) -> Evaluation:
    losses, correct, rows = [], 0, 0
    is_class = saved.manifest.label_kind == "class"
    weights_P, block_rows = saved.weights_P, saved.config.parallel.block_rows
    program = saved.model.program(block_rows, weights_P.dtype, per_sample=False)
    usable, manifest = label_problem(saved.model.loss), _reading(saved, csv)
    for x_NI, target, _ in read_features(data, manifest, labels="required", label_problem=usable):
        assert target is not None
        for x, labels in _blocks(saved, x_NI, target):
            bound = program.bind(x, labels, weights=weights_P)
            bound.forward()
            losses.append(float(bound.losses_N.sum(dtype=np.float64)))
            if is_class:
                classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
                correct += int(np.count_nonzero(bound.outputs_NO.argmax(axis=1) == classes))
        rows += len(x_NI)
    return Evaluation(math.fsum(losses) / rows, correct / rows if is_class else None, rows)


def _blocks(saved: SavedRun, x_NI: Array, target: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of rows in the shapes that the network takes.

    Classes as ones among zeros where its loss wants numbers.
    """
    if saved.model.target_kind == "number" and saved.manifest.label_kind == "class":
        target = np.eye(saved.manifest.num_targets, dtype=x_NI.dtype)[target]
    size = saved.config.parallel.block_rows
    for first in range(0, len(x_NI), size):
        rows = slice(first, first + size)
        yield x_NI[rows].reshape(-1, *saved.model.input_shape), target[rows]


def _predictions(saved: SavedRun, x_NI: Array) -> Any:
    outputs_NO = saved.model.predict(saved.weights_P, x_NI.reshape(-1, *saved.model.input_shape))
    manifest = saved.manifest
    if manifest.label_kind == "number":
        columns = {name: outputs_NO[:, i] for i, name in enumerate(manifest.labels)}
        return pa.table({name: np.ascontiguousarray(column) for name, column in columns.items()})
    best_N = outputs_NO.argmax(axis=1)
    outputs = pa.FixedSizeListArray.from_arrays(pa.array(outputs_NO.ravel()), outputs_NO.shape[1])
    return pa.table(
        {
            "prediction": pa.array(manifest.class_names).take(pa.array(best_N)),
            "probability" if saved.model.has_probabilities else "score": pa.array(
                outputs_NO[np.arange(len(best_N)), best_N]
            ),
            "outputs": outputs,
        }
    )
