"""How much memory the parts of an Arrow file or stream take, before they are decoded.

Each compressed buffer begins with its length once decoded, which its writer chose: a few kilobytes
can say gigabytes. Where the buffers lie stands in the metadata of a message, a flatbuffer whose
offsets pyarrow verified when it opened it.
Source: "Arrow Columnar Format", format/Message.fbs and format/File.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MAX_DECODED_BYTES = 512 << 20
# So many values may be the same values again, as in a table of repeated lists.
_FEW_VALUES = 16 << 20
_DICTIONARY, _RECORD_BATCH = 2, 3  # Of MessageHeader.
_TAIL_BYTES = 10  # The footer's length and the magic.


def check_decoded_size(file: pa.NativeFile, *, is_file: bool) -> None:
    """Refuse what decodes to more than `MAX_DECODED_BYTES` at once.

    Raises:
        ValueError: A part is too large, or its metadata cannot be.
    """
    for message in _messages(file, is_file=is_file):
        size = _decoded_bytes(message)
        if size > MAX_DECODED_BYTES:
            limit = f"the limit is {MAX_DECODED_BYTES >> 20} MiB; write smaller record batches"
            raise ValueError(f"a record batch of {size >> 20} MiB decoded; {limit}")


def check_views(values: pa.Array) -> None:
    """Refuse lists that are views of the same values over and over: a few bytes, much to read.

    Raises:
        ValueError: They are.
    """
    claimed = pc.sum(pc.list_value_length(values)).as_py() or 0
    if claimed > max(_FEW_VALUES, len(values.values)):
        reason = f"{claimed} values in lists that are views of {len(values.values)}"
        raise ValueError(f"{reason}; write them as plain lists")


def _messages(file: pa.NativeFile, *, is_file: bool) -> Iterator[pa.Message]:
    if not is_file:
        yield from pa.ipc.MessageReader.open_stream(file)
        return
    whole = file.read_buffer()
    (size,) = struct.unpack_from("<i", whole, whole.size - _TAIL_BYTES)
    footer = _Table.root(memoryview(whole)[whole.size - _TAIL_BYTES - size :])
    for field in (2, 3):  # Dictionaries, record batches: where each of them begins.
        for offset, *_ in footer.structs(field, "<qi4xq"):
            if not 0 <= offset < whole.size:
                raise ValueError(f"a record batch at byte {offset} of {whole.size}")
            yield pa.ipc.read_message(whole.slice(offset))


def _decoded_bytes(message: pa.Message) -> int:
    """Bytes that the compressed buffers of a message say they have once decoded."""
    table = _Table.root(memoryview(message.metadata))
    kind, batch = table.byte(1), table.child(2)
    if kind == _DICTIONARY and batch is not None:
        batch = batch.child(1)
    if kind not in {_DICTIONARY, _RECORD_BATCH} or batch is None or batch.child(3) is None:
        return 0
    body = memoryview(message.body)
    total = 0
    for offset, length in batch.structs(2, "<qq"):
        if length > 8:
            total += max(struct.unpack_from("<q", body, offset)[0], 0)
    return total


class _Table:
    """A table of a flatbuffer; a field that is not there is None, 0 or empty."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._number("<i", at)

    @classmethod
    def root(cls, data: memoryview) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def byte(self, field: int) -> int:
        at = self._place(field)
        return self._number("<B", at) if at else 0

    def child(self, field: int) -> _Table | None:
        at = self._place(field)
        return _Table(self._data, at + self._number("<I", at)) if at else None

    def structs(self, field: int, code: str) -> Iterator[tuple[Any, ...]]:
        at = self._place(field)
        if not at:
            return
        first = at + self._number("<I", at)
        for i in range(self._number("<I", first)):
            yield struct.unpack_from(code, self._data, first + 4 + i * struct.calcsize(code))

    def _place(self, field: int) -> int:
        """Where a field lies; 0 where it is not there."""
        offset = 4 + 2 * field
        if offset >= self._number("<H", self._fields):
            return 0
        there = self._number("<H", self._fields + offset)
        return self._at + there if there else 0

    def _number(self, code: str, at: int) -> int:
        if at < 0:
            raise ValueError(f"an offset of {at}")
        return int(struct.unpack_from(code, self._data, at)[0])
