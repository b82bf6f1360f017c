"""What the pages of a Parquet file take once they are decompressed, found before they are.

pyarrow keeps a page of each column in memory, and each page says for itself how large it will be: a
few bytes can say 2 GiB. What the footer says of sizes may be a lie as well, so only the headers of
the pages themselves are asked. They are found as pyarrow finds them.

They are in Thrift's compact protocol, of which this reads as much as they need. Whatever two
readers could understand differently is refused: pyarrow reads the same bytes later, and what was
checked here must be what it sees. A file of many columns has hundreds of thousands of small
structures, so one function reads a structure without a call for each byte.
Sources: apache/parquet-format, src/main/thrift/parquet.thrift (the numbers of fields below); Apache
Thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import TypeVar

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_BITS = {I16: 16, I32: 32, I64: 64}
_SIZES = {BYTE: 1, DOUBLE: 8}
_MAX_DEPTH = 16
_LARGEST_FIELD = (1 << 15) - 1
_BEYOND = "metadata that continues beyond its end"

Item = TypeVar("Item")
# What a structure holds: (field, type) to an integer, a boolean or another structure.
Fields = dict[tuple[int, int], "int | bool | Fields"]


class CompactReader:
    """Reads values one after the other; ValueError where they cannot be.

    Attributes:
        at: Place of the next byte in the data.
    """

    def __init__(self, data: bytes | mmap, at: int = 0, *, end: int | None = None) -> None:
        self._data, self.at = data, at
        self._end = len(data) if end is None else min(end, len(data))

    def fields(self) -> Iterator[tuple[int, int]]:
        """Field and type of each value of a structure; the caller reads or skips the value."""
        field, seen = 0, set[int]()
        while True:
            self._check_end(1)
            field, kind, self.at = _field(self._data, self.at, field, seen)
            if not kind:
                return
            yield field, kind

    def items(self, read: Callable[[], Item]) -> list[Item]:
        """The structures of a list, each read by `read`."""
        self._check_end(1)
        size, kind, self.at = _list_head(self._data, self.at)
        if kind != STRUCT:
            raise ValueError(f"a list of type {kind} instead of structures")
        return [read() for _ in range(size)]

    def structure(self) -> Fields:
        """The integers, booleans and structures of a structure; the rest is skipped."""
        try:
            values, self.at = _structure(self._data, self.at, self._end, 0)
        except IndexError:
            raise ValueError(_BEYOND) from None
        self._check_end(0)
        return values

    def varint(self) -> int:
        """An unsigned integer."""
        self._check_end(1)
        value, self.at = _varint(self._data, self.at)
        self._check_end(0)
        return value

    def take(self, num_bytes: int) -> bytes:
        """The next bytes."""
        self._check_end(num_bytes)
        self.at += num_bytes
        return self._data[self.at - num_bytes : self.at]

    def skip(self, kind: int) -> None:
        """Pass over a value that is a field."""
        try:
            self.at = _after(self._data, self.at, self._end, kind, 0)
        except IndexError:
            raise ValueError(_BEYOND) from None
        self._check_end(0)

    def _check_end(self, num_bytes: int) -> None:
        if self.at + num_bytes > self._end:
            raise ValueError(_BEYOND)


def _structure(data: bytes | mmap, at: int, end: int, depth: int) -> tuple[Fields, int]:
    """A structure and the place behind it."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"structures nested more than {_MAX_DEPTH} deep")
    values: Fields = {}
    field, seen = 0, set[int]()
    while True:
        if at >= end:
            raise ValueError(_BEYOND)
        field, kind, at = _field(data, at, field, seen)
        if not kind:
            return values, at
        if kind in _BITS:
            raw = data[at]
            at += 1
            if raw > 127:
                raw, at = _varint(data, at - 1)
            value = (raw >> 1) ^ -(raw & 1)
            if raw >> _BITS[kind]:
                raise ValueError(f"{value} is no integer of {_BITS[kind]} bits")
            values[field, kind] = value
        elif kind == STRUCT:
            values[field, kind], at = _structure(data, at, end, depth + 1)
        elif kind <= FALSE:
            values[field, TRUE] = kind == TRUE
        else:
            at = _after(data, at, end, kind, depth)


def _field(data: bytes | mmap, at: int, field: int, seen: set[int]) -> tuple[int, int, int]:
    """Number and type of the next field, 0 for the end, and the place behind them."""
    head = data[at]
    at += 1
    kind = head & 15
    if not kind:
        return field, 0, at
    if head >> 4:
        field += head >> 4
    else:
        raw, at = _varint(data, at)
        field = (raw >> 1) ^ -(raw & 1)
        if raw >> 16:
            raise ValueError(f"{field} is no integer of 16 bits")
    if field in seen or field > _LARGEST_FIELD:
        raise ValueError(f"field {field} occurs twice or cannot be")
    seen.add(field)
    return field, kind, at


def _after(data: bytes | mmap, at: int, end: int, kind: int, depth: int) -> int:
    """The place behind a value that is a field."""
    if at > end or depth > _MAX_DEPTH:
        raise ValueError(_BEYOND if at > end else f"structures nested over {_MAX_DEPTH} deep")
    if kind in _BITS:
        return _varint(data, at)[1]
    if kind in _SIZES:
        return at + _SIZES[kind]
    if kind == BINARY:
        size, at = _varint(data, at)
        return at + size
    if kind == STRUCT:
        return _structure(data, at, end, depth + 1)[1]
    if kind in {LIST, SET}:
        size, inner, at = _list_head(data, at)
        inner = BYTE if inner in {TRUE, FALSE} else inner
        for _ in range(size):
            at = _after(data, at, end, inner, depth + 1)
        return at
    if kind not in {TRUE, FALSE}:
        raise ValueError(f"a value of type {kind}")
    return at


def _list_head(data: bytes | mmap, at: int) -> tuple[int, int, int]:
    """How many items of which type a list has, and the place behind that."""
    head = data[at]
    size, at = _varint(data, at + 1) if head >> 4 == 15 else (head >> 4, at + 1)
    return size, head & 15, at


def _varint(data: bytes | mmap, at: int) -> tuple[int, int]:
    """An unsigned integer and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("an integer of more than ten bytes")


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
