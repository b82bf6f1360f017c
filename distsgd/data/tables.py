"""Raw tables: where rows come from, what a column holds, how many rows are decoded at once.

Files of every format (`sources`) and tables in memory stand behind one small interface, as Arrow
record batches of bounded size, in row order. Errors of pyarrow and of the file system leave as
DataError.

Integers, floats, booleans and decimals of any width, dictionary-encoded or not, are numbers; lists
of them are lists, be they fixed, variable, large or views. Features are float64, so that integers
beyond 2^53 lose digits as features; classes keep all of theirs. Arrow's own extension types for
tensors and for booleans of a byte are their storage; no other extension type is looked into, since
only its name says what its numbers mean.
"""

from __future__ import annotations

import csv
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distsgd.errors import DataError, first_line

# What pyarrow, the file system and our own reading of metadata raise for a damaged file.
_FOREIGN_ERRORS = (
    pa.ArrowException,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    struct.error,
    csv.Error,
)
_OF_A_FILE = "the file is damaged or of a kind not supported"
_IN_MEMORY = "give columns of numbers, text or lists of numbers, of equal length"


BATCH_BYTES = 16 << 20
MAX_BATCH_ROWS = 65_536
MAX_ROW_BYTES = 64 << 20
_UNKNOWN_BYTES = 64
_UNKNOWN_LIST_BYTES = 32 << 10

Kind = Literal["number", "text", "list", "null", "unsupported"]

# Ray Data's tensors keep their numbers row-major in a list, as Arrow's own do. Their names are
# found in the metadata of files: nothing of Ray is imported to read them.
_READ_AS_STORAGE = frozenset(
    {
        "arrow.fixed_shape_tensor",
        "arrow.bool8",
        "ray.data.arrow_tensor",
        "ray.data.arrow_tensor_v2",
    }
)
EXTENSION_KEY = b"ARROW:extension:name"


class MemorySource:
    """A pyarrow table in memory."""

    def __init__(self, table: pa.Table, *, name: str = "table in memory") -> None:
        self.name = name
        self._table = table
        self.schema: pa.Schema = table.schema
        self.num_rows: int = table.num_rows
        self.num_bytes: int = table.nbytes

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order; zero-copy."""
        width = row_bytes(self.schema, columns)
        with arrow_errors(self.name, way_out=_IN_MEMORY):
            selected = self._table.select(list(columns))
            yield from selected.to_batches(max_chunksize=batch_rows(width))

    def check_unchanged(self) -> None:
        """Arrow tables are immutable."""


def table_source(table: object) -> MemorySource:
    """A source from a table in memory, which a data frame may be.

    What a frame says of its index is kept: an index is no feature unless it is named.

    Args:
        table: A pyarrow Table, RecordBatch or RecordBatchReader, a pandas DataFrame, or anything
            that hands out Arrow data (``__arrow_c_stream__`` or ``__arrow_c_array__``: Polars,
            DuckDB, cuDF, ...). Read once; what is done to it afterwards is not seen.

    Raises:
        DataError: It is nothing of the kind, or cannot be read as columns.
    """
    name = "table in memory"
    try:
        return MemorySource(_as_table(table), name=name)
    except (*_FOREIGN_ERRORS, TypeError, AttributeError) as error:
        reason = f"cannot be read as a table ({first_line(error)}); {_IN_MEMORY}"
        raise DataError(name, reason) from error


def _as_table(table: object) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if isinstance(table, pa.RecordBatchReader):
        return table.read_all()
    is_frame = type(table).__name__ == "DataFrame"
    if is_frame and type(table).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(table)  # As pandas writes files: with the index, and its names.
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__"):
        return pa.table(table)
    kind = type(table)
    raise DataError(
        "table in memory",
        f"is a {kind.__module__}.{kind.__qualname__}; must be a pyarrow Table or RecordBatch, a"
        " data frame (pandas, Polars), or anything else that hands out Arrow data",
    )


def arrays_source(
    x_NI: NDArray[Any],
    y: NDArray[Any],
    *,
    label: str = "label",
    target_shape: tuple[int, ...] | None = None,
) -> MemorySource:
    """A source from features and labels in memory, with the feature column ``x``.

    Args:
        x_NI: Shape ``[N, I]``, numbers.
        y: Shape ``[N]`` (column `label`) or ``[N, K]`` (columns ``{label}_0`` to
            ``{label}_{K-1}``); of more axes one column `label` of tensors.
        label: Name of the label column.
        target_shape: Given, ``[N, K]`` too is one column, of lists; K is its product.
    """
    x_NI, y = np.asarray(x_NI), np.asarray(y)
    if x_NI.ndim != 2 or y.ndim < 1 or len(x_NI) != len(y):
        reason = f"shapes {x_NI.shape} and {y.shape} do not fit; must be [N, I] and [N] or [N, K]"
        raise DataError("arrays", reason)
    are_columns = y.ndim == 2 and target_shape is None
    names = [f"{label}_{k}" for k in range(y.shape[1])] if are_columns else [label]
    with arrow_errors("arrays", way_out=_IN_MEMORY):
        labels = [pa.array(y_N) for y_N in y.T] if are_columns else [label_array(y)]
        return MemorySource(
            pa.table([lists_array(x_NI), *labels], names=["x", *names]), name="arrays in memory"
        )


def lists_array(values: NDArray[Any]) -> pa.Array:
    """Rows ``[N, K]`` as one column of lists, or of tensors where they have more axes."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    width = math.prod(values.shape[1:])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(native.reshape(-1)), width)
    if values.ndim == 2:
        return lists
    kind = pa.fixed_shape_tensor(lists.type.value_type, values.shape[1:])
    return pa.ExtensionArray.from_storage(kind, lists)


def label_array(y: NDArray[Any]) -> pa.Array:
    """Labels ``[N]`` as a column of them; of more axes as `lists_array`."""
    return pa.array(y) if y.ndim == 1 else lists_array(y)


@contextmanager
def arrow_errors(name: str, *, way_out: str = _OF_A_FILE) -> Iterator[None]:
    """Turn what pyarrow and the file system raise into DataError."""
    try:
        yield
    except _FOREIGN_ERRORS as error:
        raise DataError(name, f"cannot be read ({first_line(error)}); {way_out}") from error


def file_stamp(path: os.PathLike[str]) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds."""
    try:
        status = os.stat(path)  # noqa: PTH116 -- of what is like a path.
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check the path and its permissions"
        raise DataError(path, reason) from error
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: os.PathLike[str], stamp: tuple[int, int]) -> None:
    """Raise DataError when a file no longer has the stamp it had when it was opened."""
    if file_stamp(path) != stamp:
        raise DataError(path, "changed while it was read; try again when it is complete")


def row_bytes(schema: pa.Schema, columns: Sequence[str]) -> int:
    """About what a row of these columns takes decoded; a guess for lists of any length and text."""
    return sum(_value_bytes(schema.field(name).type) for name in columns)


def batch_rows(bytes_per_row: int) -> int:
    """Rows of a batch: within 16 MiB and 65,536 rows."""
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(bytes_per_row, 1)))


def _value_bytes(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _value_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * 8
    if is_list(kind):
        return _UNKNOWN_LIST_BYTES
    try:
        return max(int(kind.bit_width) // 8, 8)
    except ValueError:
        return _UNKNOWN_BYTES


def kind_of(field: pa.Field) -> Kind:
    """What a column holds.

    >>> [kind_of(pa.field("a", t)) for t in (pa.int8(), pa.list_(pa.float16(), 2), pa.date32())]
    ['number', 'list', 'unsupported']
    """
    kind = plain_type(field.type)
    if foreign_extension(field) or isinstance(kind, pa.BaseExtensionType):
        return "unsupported"
    if is_number(kind):
        return "number"
    if is_text(kind):
        return "text"
    if pa.types.is_null(kind):
        return "null"
    is_stored_plainly = not pa.types.is_dictionary(field.type)
    if is_list(kind) and is_stored_plainly and kind_of(kind.value_field) == "number":
        return "list"
    return "unsupported"


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are numbers; booleans are 0 and 1."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def described(field: pa.Field) -> str:
    """The type of a column for a message, with the name of an extension type."""
    name = foreign_extension(field)
    kind = plain_type(field.type)
    return f"the extension type {name}" if name else f"type {field.type if is_list(kind) else kind}"


def foreign_extension(field: pa.Field) -> str | None:
    """Name of an extension type that is not read as its storage, registered with Arrow or not."""
    if isinstance(field.type, pa.BaseExtensionType):
        name = str(field.type.extension_name)
    else:
        name = (field.metadata or {}).get(EXTENSION_KEY, b"").decode(errors="replace")
    return name if name and name not in _READ_AS_STORAGE else None


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without the ways of storing them (dictionary, large or view text)."""
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name in _READ_AS_STORAGE:
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return pa.string() if is_text(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the lists that can hold features."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def storage(values: pa.Array) -> pa.Array:
    """An array without the extension type that is no more than a name for it."""
    return values.storage if isinstance(values.type, pa.BaseExtensionType) else values


def numbers(values: pa.Array) -> NDArray[Any]:
    """Numbers without nulls as they are stored, decimals as the nearest float64; shape ``[N]``."""
    values = storage(values)
    if pa.types.is_dictionary(values.type):
        values = storage(values.dictionary_decode())
    if pa.types.is_decimal(values.type):
        # By way of text, which is read as the nearest float64. Arrow's own cast multiplies by a
        # power of ten that is none: a third of all prices then differ in their last bit from the
        # same price stored as a float, or with more digits.
        values = pc.cast(pc.cast(values, pa.string()), pa.float64())
    assert is_number(values.type), "the schema was checked"
    return np.asarray(values.to_numpy(zero_copy_only=False))


def unified(kinds: list[pa.DataType]) -> pa.DataType:
    """One type for the numbers of columns whose types differ: integers where all are whole.

    >>> str(unified([pa.bool_(), pa.int8()])), str(unified([pa.int64(), pa.float32()]))
    ('int64', 'double')
    """
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    whole = all(pa.types.is_integer(kind) or pa.types.is_boolean(kind) for kind in kinds)
    return pa.int64() if whole else pa.float64()
