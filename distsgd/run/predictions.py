"""What a run predicts of new rows. In this process, without Ray.

Legend: N rows, O outputs, K label columns, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.base.arrays import Array
from distsgd.base.files import staging_path
from distsgd.base.settings import path_argument
from distsgd.errors import DataError, DiskError, ModelError
from distsgd.parallel.numerics import one_blas_thread
from distsgd.run.new_rows import NewRows
from distsgd.run.saved import SavedRun


def outputs(saved: SavedRun, rows: NewRows) -> Array:
    """What the network says of each row, ``[N, O]``: see `Model.predict`. Blocks."""
    with one_blas_thread():
        return np.concatenate(list(_outputs(saved, rows)))


def labels(saved: SavedRun, outputs_NO: Array) -> Array:
    """The class of each row, as it was named, ``[N]``; numbers ``[N]``, or ``[N, K]`` of several.

    Args:
        saved: The run.
        outputs_NO: Of its network.
    """
    manifest = saved.manifest
    if manifest.label_kind == "class":
        of_each: Array = np.array(manifest.class_names)[outputs_NO.argmax(axis=1)]
        return of_each
    return outputs_NO[:, 0] if outputs_NO.shape[1] == 1 else outputs_NO


def check_probabilities(saved: SavedRun) -> None:
    """Raises ModelError where the outputs of the network are no probabilities."""
    if not saved.model.has_probabilities:
        raise ModelError(
            f"loss {saved.model.loss.name!r} gives scores, which are no probabilities; use "
            "predict() for the labels, or train with a loss of probabilities, such as "
            '"softmax_cross_entropy"'
        )


def write(saved: SavedRun, rows: NewRows, out: Path | str) -> int:
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
            for outputs_NO in _outputs(saved, rows):
                table = _table(saved, outputs_NO)
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


def _outputs(saved: SavedRun, rows: NewRows) -> Iterator[Array]:
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


def _table(saved: SavedRun, outputs_NO: Array) -> Any:
    manifest = saved.manifest
    if manifest.label_kind == "number":
        columns = {name: outputs_NO[:, i] for i, name in enumerate(manifest.labels)}
        return pa.table({name: np.ascontiguousarray(column) for name, column in columns.items()})
    best_N = outputs_NO.argmax(axis=1)
    of_each = pa.FixedSizeListArray.from_arrays(pa.array(outputs_NO.ravel()), outputs_NO.shape[1])
    return pa.table(
        {
            "prediction": pa.array(manifest.class_names).take(pa.array(best_N)),
            "probability" if saved.model.has_probabilities else "score": pa.array(
                outputs_NO[np.arange(len(best_N)), best_N]
            ),
            "outputs": of_each,
        }
    )
