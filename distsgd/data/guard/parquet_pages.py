"""What the pages of a Parquet file take once they are decompressed, found before they are.

pyarrow keeps a page of each column in memory, and each page says for itself how large it will be: a
few bytes can say 2 GiB. What the footer says of sizes may be a lie as well, so only the headers of
the pages themselves are asked. They are found as pyarrow finds them.
Source: apache/parquet-format, src/main/thrift/parquet.thrift (the numbers of fields below).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from mmap import mmap
from typing import Any

from distsgd.data.guard.thrift import I32, I64, LIST, STRUCT, CompactReader, Fields

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)  # Of PageType.
_HEADERS = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
_TAIL_BYTES = 8  # The footer's length and the magic.
_MAX_PAGES = 1 << 16
_MAX_HEADER_BYTES = 16 << 20
# Some old writers left so much out of the size of a chunk (PARQUET-816).
_PADDING_BYTES = 100
MAX_PAGES_BYTES = 256 << 20
# Large pages are sound where the file is as large: only what grows out of nothing is not.
_MAX_GROWTH = 8


@dataclass(frozen=True, slots=True)
class Page:
    """One page: where its bytes lie in the file, and what its header says of them."""

    kind: int
    first: int
    num_bytes: int
    decoded_bytes: int
    num_values: int
    header: Fields


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one row group."""

    codec: int
    num_values: int
    first: int
    num_bytes: int

    def pages(self, data: mmap) -> Iterator[Page]:
        """Its pages, as far as pyarrow reads them; ValueError where a header cannot be."""
        at, seen = self.first, 0
        end = min(at + self.num_bytes + _PADDING_BYTES, len(data))
        for _ in range(_MAX_PAGES):
            if seen >= self.num_values or not 0 < at < end:
                return
            reader = CompactReader(data, at, end=at + _MAX_HEADER_BYTES)
            page = _page(reader.structure(), reader.at)
            at = page.first + page.num_bytes
            if at > end:
                raise ValueError(f"a page that ends at byte {at}, its column at {end}")
            seen += page.num_values if page.kind in {DATA, DATA_V2} else 0
            yield page
        raise ValueError(f"more than {_MAX_PAGES} pages of one column in a row group")


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """What the pages of a chunk say: bytes of a value at most, values and stored bytes in all."""

    value_bytes: int
    num_values: int
    stored_bytes: int


def read_chunks(data: mmap, num_columns: int) -> list[list[Chunk]]:
    """The chunks of each row group, by the footer; ValueError where it cannot be."""
    end = len(data) - _TAIL_BYTES
    (size,) = struct.unpack_from("<I", data, end)
    reader = CompactReader(data, max(end - size, 0), end=end)
    groups: list[list[Chunk]] = []
    for field, kind in reader.fields():
        if (field, kind) == (4, LIST):
            groups = reader.items(lambda: _row_group(reader))
        else:
            reader.skip(kind)
    for group in groups:
        if len(group) != num_columns:
            raise ValueError(f"a row group of {len(group)} columns instead of {num_columns}")
    # Chunks never overlap in a sound file; else the bytes of one page would count as those of many.
    if sum(chunk.num_bytes for group in groups for chunk in group) > len(data):
        raise ValueError("columns of more bytes than the file")
    return groups


def places_of(schema: Any, columns: frozenset[str]) -> list[int]:
    """Places in a row group of the chunks that pyarrow reads for some columns.

    Args:
        schema: Parquet schema of the file; a column of lists has a path of several parts in it.
        columns: Names of whole columns.
    """
    paths = (schema.column(place).path.split(".") for place in range(len(schema)))
    prefixes = (accumulate(path, "{}.{}".format) for path in paths)
    return [place for place, some in enumerate(prefixes) if not columns.isdisjoint(some)]


def check_sizes(data: mmap, chunks: Sequence[Chunk]) -> list[ChunkSize]:
    """What the pages of chunks that are read together say of their sizes.

    Raises:
        ValueError: They take too much memory at once.
    """
    sizes, decoded, stored = [], 0, 0
    for chunk in chunks:
        largest = {DATA: 0, DICTIONARY: 0}
        value_bytes = num_values = stored_bytes = 0
        for page in chunk.pages(data):
            kind = DICTIONARY if page.kind == DICTIONARY else DATA
            largest[kind] = max(largest[kind], page.decoded_bytes)
            stored_bytes += page.num_bytes
            if page.kind in {DATA, DATA_V2}:
                num_values += page.num_values
                value_bytes = max(value_bytes, -(-page.decoded_bytes // max(page.num_values, 1)))
        decoded += sum(largest.values())
        stored += stored_bytes
        sizes.append(ChunkSize(value_bytes, num_values, stored_bytes))
    if decoded > max(MAX_PAGES_BYTES, _MAX_GROWTH * stored):
        limit = f"the limit is {MAX_PAGES_BYTES >> 20} MiB; write smaller pages"
        raise ValueError(f"pages of {decoded >> 20} MiB decompressed; {limit}")
    return sizes


def integer(fields: Fields, field: int, kind: int = I32) -> int:
    """An integer that must be there and not be negative."""
    value = fields.get((field, kind), -1)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"field {field} of its metadata is {value}")
    return value


def _row_group(reader: CompactReader) -> list[Chunk]:
    chunks: list[Chunk] = []
    for field, kind in reader.fields():
        if (field, kind) == (1, LIST):
            chunks = reader.items(lambda: _chunk(reader.structure()))
        else:
            reader.skip(kind)
    return chunks


def _chunk(fields: Fields) -> Chunk:
    metadata = _child(fields, 3)
    first = integer(metadata, 9, I64)
    dictionary = metadata.get((11, I64), 0)
    assert isinstance(dictionary, int), "the type is part of the key"
    if 0 < dictionary < first:
        first = dictionary
    return Chunk(integer(metadata, 4), integer(metadata, 5, I64), first, integer(metadata, 7, I64))


def _page(fields: Fields, first: int) -> Page:
    kind = integer(fields, 1)
    header = _child(fields, _HEADERS[kind]) if kind in _HEADERS else {}
    num_values = integer(header, 1) if header else 0
    return Page(kind, first, integer(fields, 3), integer(fields, 2), num_values, header)


def _child(fields: Fields, field: int) -> Fields:
    if (field, STRUCT) not in fields:
        raise ValueError(f"field {field} of its metadata is not there")
    value = fields[field, STRUCT]
    assert isinstance(value, dict), "the type is part of the key"
    return value
