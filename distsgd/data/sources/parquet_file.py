"""Parquet files, decoded a bounded batch at a time, by what their pages say of themselves.

Neither what pyarrow says of column chunks (it ends the whole process when a damaged one is looked
at) nor what a row group says of its bytes is asked: 91 KB can decode to 160 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from mmap import ACCESS_READ, mmap
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.data.guard.parquet_lists import check_lengths
from distsgd.data.guard.parquet_pages import Chunk, check_sizes, read_chunks
from distsgd.data.sources.stored_files import FilePath
from distsgd.data.tables import (
    MAX_ROW_BYTES,
    arrow_errors,
    batch_rows,
    check_unchanged,
    file_stamp,
    is_text,
)
from distsgd.errors import DataError

# Footers beyond these are forged or not meant for this program.
_THRIFT_LIMITS = {
    "thrift_string_size_limit": 64 << 20,
    "thrift_container_size_limit": 4 << 20,
    "schema_depth_limit": 32,
}


class ParquetSource:
    """One Parquet file, read a bounded batch at a time."""

    def __init__(self, path: FilePath) -> None:
        self.path = path
        self.name = str(path)
        self.files = (path,)
        self._stamp = file_stamp(path)
        self.num_bytes = self._stamp[0]
        _check_magic(path, self.num_bytes)
        with arrow_errors(self.name), self._open(()) as file:
            self.schema: pa.Schema = file.schema_arrow
            self.num_rows: int = file.metadata.num_rows
        # For columns that were read before: rows of each row group to decode at once.
        self._rows_at_once: dict[tuple[str, ...], list[int]] = {}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, decoded in batches of about 16 MiB."""
        num_rows = 0
        with arrow_errors(self.name), self._open(columns) as file:
            known = self._rows_at_once.setdefault(tuple(columns), [])
            unknown = rows_at_once(self.path, file, columns, first_group=len(known))
            for group in range(file.metadata.num_row_groups):
                if group == len(known):
                    known.append(next(unknown))
                at_once = known[group]
                for batch in file.iter_batches(at_once, row_groups=[group], columns=list(columns)):
                    num_rows += batch.num_rows
                    yield batch
        if num_rows != self.num_rows:
            damage = "the file is damaged, write it again"
            reason = f"holds {num_rows} rows but says {self.num_rows}; {damage}"
            raise DataError(self.path, reason)

    def check_unchanged(self) -> None:
        """Raise DataError when the file has another size or time of change than when opened."""
        check_unchanged(self.path, self._stamp)

    def _open(self, columns: Sequence[str]) -> Any:
        # Text comes as a dictionary: a page that repeats one long text a million times then stays
        # one text.
        texts = [name for name in columns if is_text(self.schema.field(name).type)]
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


def _check_magic(path: FilePath, num_bytes: int) -> None:
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
            path,
            f"is not a Parquet file (it begins with {head!r}), nor of another format that is known"
            " (Arrow, IDX; CSV by its name, .csv, .tsv or .csv.gz); rename or convert it",
        )
    if tail != b"PAR1" or num_bytes < 12:
        raise DataError(
            path, "is a Parquet file cut short (its end is missing); copy or write it again"
        )


_LEAST_VALUE_BYTES = 8
# As many are decoded even where all are of one list.
_FEW_VALUES = 16 << 20
_MOST_VALUES_A_BYTE = 1
# Of each of very many columns so much is decoded at once, and of all of them.
_FEW_BYTES, _MOST_COLUMNS_BYTES = 2 << 10, 128 << 20


def rows_at_once(
    path: FilePath, file: Any, columns: Sequence[str], *, first_group: int = 0
) -> Iterator[int]:
    """Of each row group from `first_group` on, in turn, how many rows to decode at once.

    Args:
        path: The file.
        file: The same as a `pyarrow.parquet.ParquetFile`.
        columns: Names of the columns that are decoded.
        first_group: Number of the first row group that is asked about.

    Raises:
        DataError: Even one row takes too much memory.
        ValueError: The pages of a row group do, or their headers cannot be.
    """
    places = _places_of(file.schema, frozenset(columns))
    with path.open("rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as data:
        groups = read_chunks(data, len(file.schema))
        for number in range(first_group, file.metadata.num_row_groups):
            chunks = {place: groups[number][place] for place in places}
            width = _row_bytes(data, file, number, chunks)
            if width > MAX_ROW_BYTES:
                limit = f"the limit is {MAX_ROW_BYTES >> 20} MiB a row; make the rows shorter"
                raise DataError(path, f"row group {number} has rows of {width >> 20} MiB; {limit}")
            # A batch costs time for each of its columns, however few rows it has.
            few_bytes = min(_MOST_COLUMNS_BYTES, _FEW_BYTES * len(places))
            yield max(batch_rows(width), few_bytes // max(width, 1))


def _row_bytes(data: mmap, file: Any, number: int, chunks: dict[int, Chunk]) -> int:
    """Bytes of a row of these chunks of a row group, decoded."""
    num_rows = max(file.metadata.row_group(number).num_rows, 1)
    width = 0
    sizes = check_sizes(data, [*chunks.values()])
    for (place, chunk), size in zip(chunks.items(), sizes, strict=True):
        per_row = -(-size.num_values // num_rows)
        width += per_row * max(size.value_bytes, _LEAST_VALUE_BYTES)
        # Values that are stored are as many as they say; only others come out of nothing.
        is_many = size.num_values > max(_FEW_VALUES, _MOST_VALUES_A_BYTE * size.stored_bytes)
        if is_many and file.schema.column(place).max_repetition_level == 1:
            check_lengths(data, chunk, per_row)
    return width


def _places_of(schema: Any, columns: frozenset[str]) -> list[int]:
    """Places in a row group of the chunks that pyarrow reads for some columns.

    Args:
        schema: Parquet schema of the file; a column of lists has a path of several parts in it.
        columns: Names of whole columns.
    """
    paths = (schema.column(place).path.split(".") for place in range(len(schema)))
    prefixes = (accumulate(path, "{}.{}".format) for path in paths)
    return [place for place, some in enumerate(prefixes) if not columns.isdisjoint(some)]
