"""Rows that are handed to the trainer instead of named: arrays of any kind, or a table.

Everything that can be misunderstood is refused here, with the way out.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa

from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.data.tables import MemorySource, arrays_source, table_source
from distsgd.errors import ConfigError, DataError, first_line

_NAME = "data"
_FEATURES = "x"
_RULE = "must be (x, y), the features [N, I] and the labels [N] or [N, K], or a table with both"
# What libraries raise where their arrays cannot become numpy's.
_REFUSALS = (TypeError, ValueError, RuntimeError, OverflowError, AttributeError, BufferError)


def source_of(data: object, config: TrainConfig) -> tuple[MemorySource, tuple[str, ...]]:
    """The rows of `data` as a source, and the names of its label columns.

    Args:
        data: Features ``[N, I]`` and labels ``[N]`` or ``[N, K]``, each anything that numpy can
            take as an array; or a table: of pyarrow, a data frame, anything that hands out Arrow
            data.
        config: Names the label columns; must do so for a table. Those of arrays are called as it
            says, several ``{label}_0`` and so on where it names one, ``label`` where it names none.

    Raises:
        DataError: `data` is nothing of the kind, or cannot be rows.
        ConfigError: No label column of a table is named.
    """
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(_NAME, f"is a tuple of {len(data)}; {_RULE}")
        check_same_index(*data)
        return _arrays(as_array("x", data[0]), as_array("y", data[1]), config.data.labels)
    if isinstance(data, str | bytes | os.PathLike):
        raise DataError(_NAME, f"is {_shown(data)}; {_RULE} (name files in [data] path)")
    if isinstance(data, np.ndarray | list | dict) or data is None:
        raise DataError(_NAME, f"is {_shown(data)}; {_RULE}")
    source = table_source(data)
    if not config.data.labels:
        raise ConfigError([text for text in config.missing_sources() if "data.label" in text])
    return source, config.data.labels


def _arrays(x_NI: Array, y: Array, labels: tuple[str, ...]) -> tuple[MemorySource, tuple[str, ...]]:
    x_NI = as_features(x_NI)
    label_columns(x_NI, y)
    source = arrays_source(x_NI, y)
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


def as_features(x_NI: Array) -> Array:
    """Features ``[N, I]`` that can be rows: numbers, at least one; booleans as 0 and 1.

    Raises:
        DataError: They have another shape, or are no numbers of at most 64 bits.
    """
    if x_NI.ndim != 2:
        way_out = "x.reshape(len(x), -1) makes one row of each sample"
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


def label_columns(x_NI: Array, y: Array) -> list[Array]:
    """The columns of labels ``[N]`` or ``[N, K]`` of the rows `x_NI`.

    Raises:
        DataError: They have another shape.
    """
    if y.ndim not in {1, 2}:
        raise DataError(_NAME, f"y has shape {y.shape}; must be [N] or [N, K], a label of each row")
    if len(x_NI) != len(y):
        rule = "both must have one row for each sample"
        raise DataError(_NAME, f"x has {len(x_NI)} rows and y has {len(y)}; {rule}")
    if y.size == 0:
        raise DataError(_NAME, f"y has shape {y.shape}; there must be one label or more")
    return [y] if y.ndim == 1 else list(y.T)


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
