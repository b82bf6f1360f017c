"""Rows that a finished run is asked about: arrays, tables or files, read as its training rows were.

Letters: N rows, I features, K label columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.data.manifest import Manifest
from distsgd.data.options import with_given
from distsgd.data.prepare.prepare import LabelProblem, read_features
from distsgd.data.tables import MemorySource, table_source
from distsgd.errors import DataError
from distsgd.run.handed_in import as_array, as_features, check_same_index, label_columns

_NAME = "arrays in memory"


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows and how they are read: as those of training, but for the names of an array's columns."""

    source: Any
    manifest: Manifest

    def pieces(
        self,
        *,
        labels: Literal["required", "ignored"],
        label_problem: LabelProblem | None = None,
    ) -> Iterator[tuple[Array, NDArray[Any] | None]]:
        """Standardised features ``[N, I]``, and targets, if required; see `read_features`.

        Raises:
            DataError: A row cannot be used.
        """
        found = read_features(
            self.source, self.manifest, labels=labels, label_problem=label_problem
        )
        for x_NI, target, _ in found:
            yield x_NI, target


def rows_of_files(files: object, manifest: Manifest, csv: Sequence[str] = ()) -> NewRows:
    """The rows of a file, a glob, or a list of them.

    Args:
        files: What is read when the rows are.
        manifest: Of the training data.
        csv: How they are written, where it is CSV in another way (``"separator=;"``).
    """
    return NewRows(files, replace(manifest, csv=with_given(manifest.csv, csv)))


def are_files(data: object) -> bool:
    """Whether `data` names files rather than rows."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(item, str | os.PathLike) for item in data)
    return isinstance(data, str | os.PathLike)


def feature_rows(x: object, manifest: Manifest) -> NewRows:
    """Rows without labels.

    Args:
        x: Raw features ``[N, I]`` in the order of the columns of training, as anything that numpy
            can take as an array; or a table, whose columns are found by name.
        manifest: Of the training data.

    Raises:
        DataError: `x` is nothing of the kind, or has other features.
    """
    if are_files(x):
        raise DataError(
            "x", f"is {x!r}; must be rows (run.write_predictions(file, out) predicts a file's)"
        )
    if _is_table(x):
        return NewRows(table_source(x), manifest)
    return _arrays(as_features(as_array("x", x)), [], (), manifest)


def labelled_rows(data: object, manifest: Manifest) -> NewRows:
    """Rows with labels.

    Args:
        data: ``(x, y)``, raw features ``[N, I]`` in the order of the columns of training and labels
            ``[N]`` or ``[N, K]``; or a table with the columns of training, labels too.
        manifest: Of the training data.

    Raises:
        DataError: `data` is nothing of the kind, or has other columns.
    """
    if not isinstance(data, tuple):
        return NewRows(table_source(data), manifest)
    if len(data) != 2:
        raise DataError("data", f"is a tuple of {len(data)}; must be (x, y), a table, or a file")
    check_same_index(*data)
    x_NI, y = as_features(as_array("x", data[0])), as_array("y", data[1])
    columns = label_columns(x_NI, y)
    if len(columns) != len(manifest.labels):
        names = ", ".join(manifest.labels)
        rule = f"must have {len(manifest.labels)}, as the rows of training: {names}"
        raise DataError("data", f"y has {len(columns)} label columns; {rule}")
    return _arrays(x_NI, columns, manifest.labels, manifest)


def _is_table(x: object) -> bool:
    if isinstance(x, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        return True
    return hasattr(x, "__arrow_c_stream__") or type(x).__name__ == "DataFrame"


def _arrays(
    x_NI: Array, labels: Sequence[Array], names: tuple[str, ...], manifest: Manifest
) -> NewRows:
    """One column of lists, so that thousands of features are no thousands of columns."""
    if x_NI.shape[1] != manifest.num_features:
        shown = ", ".join(manifest.columns[:8]) + (", ..." if len(manifest.columns) > 8 else "")
        rule = f"must have {manifest.num_features}, in the order of training ({shown})"
        raise DataError("x", f"has {x_NI.shape[1]} features; {rule}")
    column = next(name for name in ("x", "features", "rows") if name not in names)
    flat = pa.array(np.ascontiguousarray(x_NI).reshape(-1))
    features = pa.FixedSizeListArray.from_arrays(flat, x_NI.shape[1])
    table = pa.table([features, *map(pa.array, labels)], names=[column, *names])
    as_lists = replace(manifest, columns=(column,), list_width=x_NI.shape[1])
    return NewRows(MemorySource(table, name=_NAME), as_lists)
