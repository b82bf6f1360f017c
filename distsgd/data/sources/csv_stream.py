"""The bytes of a CSV file as UTF-8, whatever its encoding and compression; what is wrong with them.

Reads, and interprets nothing but characters.
"""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from distsgd.data.options import way_out
from distsgd.data.sources.stored_files import FilePath
from distsgd.errors import DataError

BLOCK_BYTES = 4 << 20
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # Before UTF-16, whose mark it begins with.
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_TEXT = {
    b"PAR1": "is a Parquet file by its first bytes; name it .parquet",
    b"ARROW1": "is an Arrow file by its first bytes; name it .arrow",
    b"\x1f\x8b": "is compressed with gzip by its first bytes; name it .csv.gz",
    b"PK\x03\x04": "is a ZIP archive by its first bytes, as a spreadsheet is; save it as CSV",
}


class Utf8Stream(io.RawIOBase):
    """A file, decompressed where its name says so, as UTF-8 without a byte order mark.

    UTF-8 itself is passed on and not checked here. `num_quotes` counts the quotes read. Raises
    DataError for a NUL, and for bytes that are no text in `encoding`.
    """

    def __init__(self, path: FilePath, encoding: str) -> None:
        self._path, self._encoding = path, encoding
        self._file: Any = None  # For `close`, where opening fails.
        self._file = pa.input_stream(os.fspath(path), compression="detect")
        is_utf8 = codecs.lookup(encoding).name in {"utf-8", "utf-8-sig"}
        self._decoder = None if is_utf8 else codecs.getincrementaldecoder(encoding)()
        self._blocks = self._utf8_blocks()
        self._ready = b""
        self.num_quotes = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, fewer at the end of the file; none after it."""
        parts, missing = [], size
        while missing:
            block = self._ready or next(self._blocks, b"")
            if not block:
                break
            part, self._ready = (block, b"") if size < 0 else (block[:missing], block[missing:])
            parts.append(part)
            missing -= len(part) if size >= 0 else 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()

    def _utf8_blocks(self) -> Iterator[bytes]:
        offset, num_lines, is_first = 0, 0, True
        while True:
            raw = self._file.read(BLOCK_BYTES)
            if is_first:
                self._check_start(raw)
            try:
                block = self._decoder.decode(raw, final=not raw).encode() if self._decoder else raw
            except UnicodeDecodeError as error:
                raise self._no_text(error) from None
            if is_first and block.startswith(codecs.BOM_UTF8):
                block = block[len(codecs.BOM_UTF8) :]
            if b"\0" in block:
                raise self._has_nul(block, offset, num_lines)
            num_lines += block.count(b"\n") if self._decoder else 0
            if block:
                self.num_quotes += block.count(b'"')
                yield block
            if not raw:
                return
            offset, is_first = offset + len(raw), False

    def _check_start(self, raw: bytes) -> None:
        for magic, reason in _NO_TEXT.items():
            if raw.startswith(magic) and b"\0" in raw:
                raise DataError(self._path, reason)
        found = next((name for mark, name in _BYTE_ORDER_MARKS.items() if raw.startswith(mark)), "")
        encoding = codecs.lookup(self._encoding).name
        if found and not encoding.startswith(found):
            reason = f"is {found.upper()} text (its first bytes are {raw[:2].hex(' ')})"
            raise DataError(self._path, f"{reason}, not {encoding}; {way_out('encoding', found)}")
        if raw and encoding in {"utf-16", "utf-32"} and not found:
            reason = f"has no byte order mark, with which {encoding.upper()} text begins"
            mend = f"{way_out('encoding', 'utf-8')}, or to {encoding}-le or {encoding}-be"
            raise DataError(self._path, f"{reason}; {mend}")

    def _no_text(self, error: UnicodeDecodeError) -> DataError:
        byte = error.object[error.start]
        reason = f"has the byte 0x{byte:02x}, which is no text in {self._encoding}"
        return DataError(self._path, f"{reason}; {way_out('encoding', 'utf-8')}, or to what it is")

    def _has_nul(self, block: bytes, offset: int, num_lines: int) -> DataError:
        head = block[:1024]
        halves = (head[0::2].count(0), head[1::2].count(0))
        if offset == 0 and max(halves) > len(head) // 4:
            name = "utf-16-le" if halves[1] > halves[0] else "utf-16-be"
            reason = f"is UTF-16 text ({sum(halves)} of its first {len(head)} bytes are NUL)"
            return DataError(self._path, f"{reason}; {way_out('encoding', name)}")
        # Lines are counted as they come only where bytes are not what they are in the file.
        before = num_lines if self._decoder else _line_of_byte(self._path, offset) - 1
        line = before + block.count(b"\n", 0, block.index(0)) + 1
        reason = f"line {line} has a NUL, which no text has"
        return DataError(self._path, f"{reason}; remove it (tr -d '\\000' <old.csv >new.csv)")


def no_utf8(path: FilePath) -> DataError | None:
    """The error that names the first byte of a file that is no UTF-8; None where all is."""
    decoder, offset = codecs.getincrementaldecoder("utf-8")(), 0
    with pa.input_stream(os.fspath(path), compression="detect") as file:
        while True:
            raw = file.read(BLOCK_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                at, byte = offset - pending + error.start, error.object[error.start]
                break
            if not raw:
                return None
            offset += len(raw)
    reason = f"line {_line_of_byte(path, at)} has the byte 0x{byte:02x}, which is no UTF-8"
    mend = f"for Latin-1 {way_out('encoding', 'latin-1')}; for Windows it is cp1252"
    return DataError(path, f"{reason}; {mend}")


def _line_of_byte(path: FilePath, offset: int) -> int:
    line = 1
    with pa.input_stream(os.fspath(path), compression="detect") as file:
        while offset > 0:
            block = file.read(min(BLOCK_BYTES, offset))
            line += block.count(b"\n")
            offset -= len(block) or offset
    return line
