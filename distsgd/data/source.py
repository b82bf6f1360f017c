"""Sources: where raw rows come from, as Arrow record batches of bounded size, in row order.

Parquet files and tables in memory stand behind one small interface. Errors of pyarrow and of the
file system leave this module as DataError. Nothing is interpreted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distsgd.data.paths import check_different, expand_paths, file_stamp
from distsgd.errors import DataError

BATCH_BYTES = 16 << 20
MAX_BATCH_ROWS = 65_536
MAX_ROW_BYTES = 64 << 20
# Footers beyond these are forged or not meant for this program.
_THRIFT_LIMITS = {
    "thrift_string_size_limit": 64 << 20,
    "thrift_container_size_limit": 4 << 20,
    "schema_depth_limit": 32,
}
_UNKNOWN_BYTES = 64
_UNKNOWN_LIST_BYTES = 32 << 10

SourceSpec: TypeAlias = "str | Path | Sequence[str | Path] | TableSource"


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
        width = _row_bytes(self.schema, columns)
        with arrow_errors(self.name):
            selected = self._table.select(list(columns))
            yield from selected.to_batches(max_chunksize=_batch_rows(width))

    def check_unchanged(self) -> None:
        """Arrow tables are immutable."""


class ParquetSource:
    """One Parquet file, read a bounded batch at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._stamp = file_stamp(path)
        self.num_bytes = self._stamp[0]
        _check_magic(path, self.num_bytes)
        with arrow_errors(self.name), self._open(()) as file:
            self.schema: pa.Schema = file.schema_arrow
            self.num_rows: int = file.metadata.num_rows

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, decoded in batches of about 16 MiB."""
        num_rows = 0
        with arrow_errors(self.name), self._open(columns) as file:
            for group in range(file.metadata.num_row_groups):
                batch_rows = self._batch_rows(file.metadata.row_group(group), group, columns)
                for batch in file.iter_batches(
                    batch_rows, row_groups=[group], columns=list(columns)
                ):
                    num_rows += batch.num_rows
                    yield batch
        if num_rows != self.num_rows:
            damage = "the file is damaged, write it again"
            reason = f"holds {num_rows} rows but says {self.num_rows}; {damage}"
            raise DataError(self.path, reason)

    def check_unchanged(self) -> None:
        """Raise DataError when the file has another size or time of change than when opened."""
        if file_stamp(self.path) != self._stamp:
            raise DataError(self.path, "changed while it was read; try again when it is complete")

    def _open(self, columns: Sequence[str]) -> Any:
        # Text comes as a dictionary: a page that repeats one long text a million times then stays
        # one text.
        texts = [name for name in columns if _is_text(self.schema.field(name).type)]
        return pq.ParquetFile(
            self.path,
            read_dictionary=texts,
            # Streaming: without these, pyarrow holds the compressed columns of whole row groups.
            pre_buffer=False,
            buffer_size=max(4 << 10, min(1 << 20, (32 << 20) // max(len(columns), 1))),
            page_checksum_verification=True,
            arrow_extensions_enabled=False,
            **_THRIFT_LIMITS,
        )

    def _batch_rows(self, group: Any, number: int, columns: Sequence[str]) -> int:
        """Rows of a row group to decode at once; DataError where even one row is too much."""
        # The metadata of column chunks would tell more, but pyarrow ends the whole process when a
        # damaged one is looked at. What a row group says of its bytes may be a lie (91 KB can
        # decode to 160 MB), so that it can only make batches smaller.
        claimed = group.total_byte_size // max(group.num_rows, 1)
        width = max(_row_bytes(self.schema, columns), claimed)
        if width > MAX_ROW_BYTES:
            reason = (
                f"row group {number} has rows of {width >> 20} MiB; the limit is"
                f" {MAX_ROW_BYTES >> 20} MiB a row; make the rows shorter"
            )
            raise DataError(self.path, reason)
        return _batch_rows(width)


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
    with arrow_errors("arrays"):
        flat = pa.array(np.ascontiguousarray(x_NI, x_NI.dtype.newbyteorder("=")).reshape(-1))
        arrays = [
            pa.FixedSizeListArray.from_arrays(flat, x_NI.shape[1]),
            *(pa.array(c) for c in columns),
        ]
        return MemorySource(pa.table(arrays, names=["x", *names]), name="arrays in memory")


def open_sources(spec: SourceSpec) -> list[TableSource]:
    """Each file of a path, glob or list of them as a source; a source is passed on.

    A glob's files come sorted by name. Raises DataError for what is missing, foreign or named
    twice.
    """
    if not isinstance(spec, str | Path | Sequence):
        return [spec]
    return [ParquetSource(path) for path in expand_paths(spec)]


def check_named_once(sources: Sequence[TableSource]) -> None:
    """Raise DataError for a file that is there twice, be it for training and for testing."""
    check_different([source.path for source in sources if isinstance(source, ParquetSource)])


@contextmanager
def arrow_errors(name: str) -> Iterator[None]:
    """Turn what pyarrow and the file system raise into DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"cannot be read ({first_line}); the file is damaged or of a kind not supported"
        raise DataError(name, reason) from error


def _check_magic(path: Path, num_bytes: int) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(max(num_bytes - 4, 0))
            tail = file.read(4)
    except OSError as error:
        raise DataError(
            path, f"cannot be read ({error.strerror}); check its permissions"
        ) from error
    if num_bytes == 0:
        raise DataError(path, "is empty; write it again")
    if b"PARE" in {head, tail}:
        raise DataError(
            path, "is an encrypted Parquet file, which is not supported; decrypt it first"
        )
    if head != b"PAR1":
        raise DataError(
            path, f"is not a Parquet file (it begins with {head!r}); convert it to Parquet"
        )
    if tail != b"PAR1" or num_bytes < 12:
        raise DataError(
            path, "is a Parquet file cut short (its end is missing); copy or write it again"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _row_bytes(schema: pa.Schema, columns: Sequence[str]) -> int:
    return sum(_value_bytes(schema.field(name).type) for name in columns)


def _value_bytes(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * 8
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _UNKNOWN_LIST_BYTES
    try:
        return max(int(kind.bit_width) // 8, 8)
    except ValueError:
        return _UNKNOWN_BYTES


def _batch_rows(row_bytes: int) -> int:
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(row_bytes, 1)))
