"""Thrift's compact protocol, as far as the metadata of Parquet files needs it; reading only.

Whatever two readers could understand differently is refused: pyarrow reads the same bytes later,
and what was checked here must be what it sees. A file of many columns has hundreds of thousands of
small structures, so one function reads a structure without a call for each byte. No I/O here.
Source: Apache Thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
