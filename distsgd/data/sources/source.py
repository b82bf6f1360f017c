"""Sources: where raw rows come from, as Arrow record batches of bounded size, in row order.

Files of every format (`formats`) and tables in memory stand behind one small interface. Errors of
pyarrow and of the file system leave as DataError. Nothing is interpreted here.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.data.guard.batches import batch_rows, row_bytes
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


class TableSource(Protocol):
    """A table of rows that can be read more than once, always in the same order."""

    @property
    def name(self) -> str:
        """What a message calls it."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows the source says it has."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes it takes where it lies."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, with at least these columns; DataError where a row cannot be read."""
        ...

    def check_unchanged(self) -> None:
        """Raise DataError when the source is no longer what was opened."""
        ...


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


def arrays_source(x_NI: NDArray[Any], y: NDArray[Any], *, label: str = "label") -> MemorySource:
    """A source from features and labels in memory, with the feature column ``x``.

    Args:
        x_NI: Shape ``[N, I]``, numbers.
        y: Shape ``[N]`` (column `label`) or ``[N, K]`` (columns ``{label}_0`` to
            ``{label}_{K-1}``).
        label: Name of the label column.
    """
    x_NI, y = np.asarray(x_NI), np.asarray(y)
    if x_NI.ndim != 2 or y.ndim not in {1, 2} or len(x_NI) != len(y):
        reason = f"shapes {x_NI.shape} and {y.shape} do not fit; must be [N, I] and [N] or [N, K]"
        raise DataError("arrays", reason)
    names = [label] if y.ndim == 1 else [f"{label}_{k}" for k in range(y.shape[1])]
    columns = [y] if y.ndim == 1 else list(y.T)
    with arrow_errors("arrays", way_out=_IN_MEMORY):
        flat = pa.array(np.ascontiguousarray(x_NI, x_NI.dtype.newbyteorder("=")).reshape(-1))
        arrays = [
            pa.FixedSizeListArray.from_arrays(flat, x_NI.shape[1]),
            *(pa.array(c) for c in columns),
        ]
        return MemorySource(pa.table(arrays, names=["x", *names]), name="arrays in memory")


@contextmanager
def arrow_errors(name: str, *, way_out: str = _OF_A_FILE) -> Iterator[None]:
    """Turn what pyarrow and the file system raise into DataError."""
    try:
        yield
    except _FOREIGN_ERRORS as error:
        raise DataError(name, f"cannot be read ({first_line(error)}); {way_out}") from error
