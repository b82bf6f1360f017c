"""Thrift's compact protocol, as far as the metadata of Parquet files needs it; reading only.

Whatever two readers could understand differently is refused: pyarrow reads the same bytes later,
and what was checked here must be what it sees. No I/O here.
Source: Apache Thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from mmap import mmap
from typing import TypeVar

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_BITS = {I16: 16, I32: 32, I64: 64}
_MAX_DEPTH = 16
_LARGEST_FIELD = (1 << 15) - 1

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
        field, seen = 0, set()
        while True:
            head = self._byte()
            kind = head & 15
            if not kind:
                return
            field = field + (head >> 4) if head >> 4 else self.integer(I16)
            if field in seen or field > _LARGEST_FIELD:
                raise ValueError(f"field {field} is there twice or cannot be")
            seen.add(field)
            yield field, kind

    def items(self, read: Callable[[], Item]) -> list[Item]:
        """The structures of a list, each read by `read`."""
        size, kind = self._list_head()
        if kind != STRUCT:
            raise ValueError(f"a list of type {kind} instead of structures")
        return [read() for _ in range(size)]

    def structure(self, depth: int = 0) -> Fields:
        """The integers, booleans and structures of a structure; the rest is skipped."""
        values: Fields = {}
        for field, kind in self.fields():
            if kind in {TRUE, FALSE}:
                values[field, TRUE] = kind == TRUE
            elif kind in _BITS:
                values[field, kind] = self.integer(kind)
            elif kind == STRUCT and depth < _MAX_DEPTH:
                values[field, kind] = self.structure(depth + 1)
            else:
                self.skip(kind, depth)
        return values

    def integer(self, kind: int) -> int:
        """A signed integer of type `kind`."""
        raw = self.varint()
        value = (raw >> 1) ^ -(raw & 1)
        if raw >> _BITS[kind]:
            raise ValueError(f"{value} is no integer of {_BITS[kind]} bits")
        return value

    def varint(self) -> int:
        """An unsigned integer."""
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("an integer of more than ten bytes")

    def take(self, num_bytes: int) -> bytes:
        """The next bytes."""
        self._advance(num_bytes)
        return self._data[self.at - num_bytes : self.at]

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value that is a field."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"structures nested more than {_MAX_DEPTH} deep")
        if kind in _BITS:
            self.varint()
        elif kind in {BYTE, DOUBLE, BINARY}:
            self._advance({BYTE: 1, DOUBLE: 8}.get(kind) or self.varint())
        elif kind in {LIST, SET}:
            size, inner = self._list_head()
            for _ in range(size):
                self.skip(BYTE if inner in {TRUE, FALSE} else inner, depth + 1)
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind not in {TRUE, FALSE}:
            raise ValueError(f"a value of type {kind}")

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        return (self.varint() if head >> 4 == 15 else head >> 4), head & 15

    def _byte(self) -> int:
        self._advance(1)
        return self._data[self.at - 1]

    def _advance(self, num_bytes: int) -> None:
        self.at += num_bytes
        if self.at > self._end:
            raise ValueError("metadata that goes on beyond their end")
