"""How many rows of a Parquet file may be decoded at once, by what its pages say of themselves.

Neither what pyarrow says of column chunks (it ends the whole process when a damaged one is looked
at) nor what a row group says of its bytes is asked: 91 KB can decode to 160 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from distsgd.data.guard.batches import MAX_ROW_BYTES, batch_rows
from distsgd.data.guard.parquet_lists import check_lengths
from distsgd.data.guard.parquet_pages import Chunk, check_sizes, places_of, read_chunks
from distsgd.errors import DataError

_LEAST_VALUE_BYTES = 8
# As many are decoded even where all are of one list.
_FEW_VALUES = 16 << 20
_MOST_VALUES_A_BYTE = 1
# Of each of very many columns so much is decoded at once, and of all of them.
_FEW_BYTES, _MOST_COLUMNS_BYTES = 2 << 10, 128 << 20


def rows_at_once(
    path: Path, file: Any, columns: Sequence[str], *, first_group: int = 0
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
    places = places_of(file.schema, frozenset(columns))
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
