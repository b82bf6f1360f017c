"""Rows that are handed in: to the trainer instead of named, or to a finished run, also as files.

A run reads them as its training rows were. Everything that can be misunderstood is refused
here, with the way out. Letters: N rows, I features, K labels of a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.data.cache_directory import DEFAULT_CACHE, Cache
from distsgd.data.manifest import Manifest
from distsgd.data.options import with_given
from distsgd.data.prepare.prepare import LabelProblem, read_features
from distsgd.data.sources.source import TableSource, is_source
from distsgd.data.tables import MemorySource, arrays_source, lists_array, table_source
from distsgd.errors import ConfigError, DataError, first_line

_NAME = "data"
_FEATURES = "x"
_RULE = "must be (x, y), the features [N, I] and the labels [N] or [N, K], or a table with both"
# What libraries raise where their arrays cannot become numpy's.
_REFUSALS = (TypeError, ValueError, RuntimeError, OverflowError, AttributeError, BufferError)


def source_of(data: object, config: TrainConfig) -> tuple[TableSource, tuple[str, ...]]:
    """The rows of `data` as a source, and the names of its label columns.

    Args:
        data: Features ``[N, I]``, or of the `input_shape` of `config`, and labels, each anything
            that numpy can take as an array; a table: of pyarrow, a data frame, anything that hands
            out Arrow data; or a `TableSource`, which `prepare` holds to its protocol. Labels
            ``[N]`` are one column. ``[N, K]`` are K columns of numbers, or one of lists where
            `config` has a `target_shape`; of more axes they are one column of such tensors.
        config: Names the label columns; must do so for tables and sources. Those of arrays are
            called as it says, several ``{label}_0`` and so on for one name, ``label`` for none.

    Raises:
        DataError: `data` is nothing of the kind, or cannot be rows.
        ConfigError: No label column of a table is named.
    """
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(_NAME, f"is a tuple of {len(data)}; {_RULE}")
        check_same_index(*data)
        x, y = as_array("x", data[0]), as_array("y", data[1])
        x_NI = as_features(x, config.data.input_shape)
        check_labels(x_NI, y)
        return _arrays(arrays_source(x_NI, y, target_shape=config.data.target_shape), config)
    if isinstance(data, str | bytes | os.PathLike):
        raise DataError(_NAME, f"is {_shown(data)}; {_RULE} (name files in [data] path)")
    if isinstance(data, np.ndarray | list | dict) or data is None:
        raise DataError(_NAME, f"is {_shown(data)}; {_RULE}")
    source = cast(TableSource, data) if is_source(data) else table_source(data)
    if not config.data.labels:
        raise ConfigError([text for text in config.missing_sources() if "data.label" in text])
    return source, config.data.labels


def _arrays(source: MemorySource, config: TrainConfig) -> tuple[MemorySource, tuple[str, ...]]:
    """The source with its label columns called as the configuration says, and what that is."""
    labels = config.data.labels
    made = source.schema.names[1:]
    names = labels or tuple(made)
    if len(names) == 1 and len(made) > 1:
        names = tuple(f"{names[0]}_{k}" for k in range(len(made)))
    if len(names) != len(made):
        reason = f"have {len(made)} label columns; must be {len(names)}, as [data] label names"
        raise DataError("arrays", reason)
    if _FEATURES in names:
        reason = f"label {_FEATURES!r} has the name of the features of arrays; name it otherwise"
        raise DataError("arrays", f"{reason} in [data] label")
    table = pa.Table.from_batches(source.batches(source.schema.names), source.schema)
    return MemorySource(table.rename_columns([_FEATURES, *names]), name=source.name), names


def as_features(x: Array, input_shape: tuple[int, ...] | None) -> Array:
    """Features ``[N, I]`` that can be rows: numbers, at least one; booleans as 0 and 1.

    Args:
        x: They, or ``[N, *input_shape]``.
        input_shape: Of the configuration, or the model.

    Raises:
        DataError: They have another shape, or are no numbers of at most 64 bits.
    """
    has_axes = x.ndim > 2 and x.shape[1:] == input_shape and x.size
    x_NI = x.reshape(len(x), -1) if has_axes else x
    if x_NI.ndim != 2:
        way_out = "x.reshape(len(x), -1) makes one row of each sample, [data] input_shape its axes"
        way_out = "x[:, None] makes one column of them" if x_NI.ndim == 1 else way_out
        raise DataError(
            _NAME, f"x has shape {x_NI.shape}; must be [N, I], rows of features ({way_out})"
        )
    if x_NI.size == 0:
        rule = "there must be one row and feature or more"
        raise DataError(_NAME, f"x has shape {x_NI.shape}; {rule}")
    if x_NI.dtype.kind not in "biuf" or x_NI.dtype.itemsize > 8:
        way_out = "give them as float32 or float64 (text and objects as numbers, or as a table)"
        raise DataError(
            _NAME, f"x holds {x_NI.dtype}; must be numbers of at most 64 bits, {way_out}"
        )
    return x_NI.astype(np.uint8) if x_NI.dtype.kind == "b" else x_NI


def check_labels(x_NI: Array, y: Array) -> None:
    """Raises DataError unless `y` has a label, or several, of each of the rows `x_NI`."""
    if not y.ndim:
        raise DataError(_NAME, f"y has shape {y.shape}; must be [N] or [N, K], a label of each row")
    if len(x_NI) != len(y):
        rule = "both must have one row for each sample"
        raise DataError(_NAME, f"x has {len(x_NI)} rows and y has {len(y)}; {rule}")
    if y.size == 0:
        raise DataError(_NAME, f"y has shape {y.shape}; there must be one label or more")


def check_same_index(x: Any, y: Any) -> None:
    """Refuse a frame and a series of other rows: they would meet by place, and not by index."""
    are_labelled = all(hasattr(getattr(one, "index", None), "equals") for one in (x, y))
    if are_labelled and not x.index.equals(y.index):
        way_out = "align them (y = y.loc[x.index]), or give x.to_numpy() and y.to_numpy()"
        reason = "x and y have different indexes, and their rows would meet by place alone"
        raise DataError(_NAME, f"{reason}; {way_out}")


def as_array(name: str, value: Any) -> Array:
    """Anything that numpy can take as an array, without losing anything by it. Raises DataError."""
    if hasattr(value, "toarray") and not hasattr(value, "__array__"):
        raise DataError(_NAME, f"{name} is sparse; give {name}.toarray(), if it fits into memory")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(_NAME, f"{name} has masked values; fill them in, or leave out their rows")
    if value is None or isinstance(value, str | bytes | dict | set):
        raise DataError(_NAME, f"{name} is {_shown(value)}; {_RULE}")
    try:
        is_foreign = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        array = np.from_dlpack(value) if is_foreign else np.asarray(value)
    except _REFUSALS as error:
        said = first_line(error)
        reason = f"{name} is {_shown(value)}, which numpy cannot take as an array ({said})"
        raise DataError(
            _NAME, f"{reason}; give an array of numbers in this machine's memory"
        ) from error
    if array.ndim == 0 and array.dtype == object:
        rule = "which numpy does not take as an array; give an array or a list"
        raise DataError(_NAME, f"{name} is {_shown(value)}, {rule}")
    if array.dtype.kind == "T":  # numpy's own text, which Arrow does not know.
        return array.astype(object)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _shown(value: object) -> str:
    kind = type(value)
    return f"an object of type {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows and how they are read: as those of training, but for the names of an array's columns."""

    source: Any
    manifest: Manifest
    cache: Cache = DEFAULT_CACHE

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
            self.source,
            self.manifest,
            labels=labels,
            label_problem=label_problem,
            cache=self.cache,
        )
        for x_NI, target, _ in found:
            yield x_NI, target


def rows_of_files(
    files: object, manifest: Manifest, csv: Sequence[str] = (), cache: Cache = DEFAULT_CACHE
) -> NewRows:
    """The rows of a file, an address, a glob, or a list of them.

    Args:
        files: What is read when the rows are.
        manifest: Of the training data.
        csv: How they are written, where it is CSV in another way (``"separator=;"``).
        cache: Where what is on object storage is fetched to.
    """
    return NewRows(files, replace(manifest, csv=with_given(manifest.csv, csv)), cache)


def are_files(data: object) -> bool:
    """Whether `data` names files rather than rows."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(item, str | os.PathLike) for item in data)
    return isinstance(data, str | os.PathLike)


def feature_rows(x: object, manifest: Manifest, input_shape: tuple[int, ...]) -> NewRows:
    """Rows without labels.

    Args:
        x: Raw features ``[N, I]`` in the order of the columns of training, or ``[N, *input_shape]``
            of the same, as anything that numpy can take as an array; or a table, whose columns are
            found by name.
        manifest: Of the training data.
        input_shape: Of the model.

    Raises:
        DataError: `x` is nothing of the kind, or has other features.
    """
    if are_files(x):
        raise DataError(
            "x", f"is {x!r}; must be rows (run.write_predictions(file, out) predicts a file's)"
        )
    if is_source(x):
        return NewRows(x, manifest)
    if _is_table(x):
        return NewRows(table_source(x), manifest)
    return _new_arrays(as_features(as_array("x", x), input_shape), [], (), manifest)


def labelled_rows(data: object, manifest: Manifest, input_shape: tuple[int, ...]) -> NewRows:
    """Rows with labels.

    Args:
        data: ``(x, y)``, raw features as for `feature_rows` and as many labels a row as in
            training, ``[N]`` or ``[N, ...]``; or a table with the columns of training, labels too.
        manifest: Of the training data.
        input_shape: Of the model.

    Raises:
        DataError: `data` is nothing of the kind, or has other columns.
    """
    if is_source(data):
        return NewRows(data, manifest)
    if not isinstance(data, tuple):
        return NewRows(table_source(data), manifest)
    if len(data) != 2:
        raise DataError("data", f"is a tuple of {len(data)}; must be (x, y), a table, or a file")
    check_same_index(*data)
    x_NI, y = as_features(as_array("x", data[0]), input_shape), as_array("y", data[1])
    check_labels(x_NI, y)
    y_NK, num_labels = y.reshape(len(y), -1), len(manifest.target_names)
    if y_NK.shape[1] != num_labels:
        names = ", ".join(manifest.labels)
        rule = f"must have {num_labels}, as the rows of training: {names}"
        raise DataError("data", f"y has {y_NK.shape[1]} labels a row; {rule}")
    are_lists = len(manifest.labels) < num_labels
    columns = [lists_array(y_NK)] if are_lists else [pa.array(y_N) for y_N in y_NK.T]
    return _new_arrays(x_NI, columns, manifest.labels, manifest)


def _is_table(x: object) -> bool:
    if isinstance(x, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        return True
    return hasattr(x, "__arrow_c_stream__") or type(x).__name__ == "DataFrame"


def _new_arrays(
    x_NI: Array, labels: Sequence[pa.Array], names: tuple[str, ...], manifest: Manifest
) -> NewRows:
    """One column of lists, so that thousands of features are no thousands of columns."""
    if x_NI.shape[1] != manifest.num_features:
        shown = ", ".join(manifest.columns[:8]) + (", ..." if len(manifest.columns) > 8 else "")
        rule = f"must have {manifest.num_features}, in the order of training ({shown})"
        raise DataError("x", f"has {x_NI.shape[1]} features; {rule}")
    column = next(name for name in ("x", "features", "rows") if name not in names)
    table = pa.table([lists_array(x_NI), *labels], names=[column, *names])
    as_lists = replace(manifest, columns=(column,), list_width=x_NI.shape[1])
    return NewRows(MemorySource(table, name="arrays in memory"), as_lists)
