"""Whether all lists of a Parquet column are equally long, found before any is decoded.

pyarrow decodes a whole list at once, and a few bytes can say that one has a thousand million
values. Where lists begin stands apart from their values, in the repetition levels: 0 for the first
value of a list, 1 for the others.
Source: apache/parquet-format, Encodings.md, "Run Length Encoding / Bit-Packing Hybrid".
"""

from __future__ import annotations

import struct
from mmap import mmap

import numpy as np
import pyarrow as pa

from distsgd.data.guard.parquet_pages import DATA, DATA_V2, Chunk, CompactReader, Page, integer

_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_RLE = 3  # Of Encoding.
_AT_ONCE = 1 << 20


def check_lengths(data: mmap, chunk: Chunk, width: int) -> None:
    """Raise ValueError unless each list of a column of lists has `width` values."""
    place = 0
    for page in chunk.pages(data):
        if page.kind in {DATA, DATA_V2}:
            reader, end = CompactReader(_levels(data, chunk.codec, page)), place + page.num_values
            while place < end:
                place = _check_run(reader, place, end, width)


def _levels(data: mmap, codec: int, page: Page) -> bytes:
    """The repetition levels of a page, still encoded."""
    if page.kind == DATA_V2:
        return data[page.first : page.first + integer(page.header, 6)]
    if integer(page.header, 4) != _RLE:
        raise ValueError("repetition levels in an encoding that is not supported")
    body = data[page.first : page.first + page.num_bytes]
    if codec and codec not in _CODECS:
        raise ValueError("very many list values in a codec that is not supported; write zstd")
    if codec:
        body = pa.Codec(_CODECS[codec]).decompress(body, page.decoded_bytes, asbytes=True)
    (size,) = struct.unpack_from("<I", body)
    return body[4 : 4 + size]


def _check_run(reader: CompactReader, place: int, end: int, width: int) -> int:
    """Read the levels from `place` on that are encoded together; gives the place behind them."""
    head = reader.varint()
    are_bits, count = head & 1, head >> 1
    body = reader.take(count if are_bits else 1)
    stop = min(place + (8 * count if are_bits else count), end)
    if are_bits:
        are_equal = all(
            _begin_lists(body[i : i + _AT_ONCE], place + 8 * i, stop, width)
            for i in range(0, count, _AT_ONCE)
        )
    else:
        num_begins = -(-stop // width) - -(-place // width)
        are_equal = num_begins == (0 if body[0] else stop - place)
    if not are_equal:
        raise ValueError(
            f"lists that are not all of {width} values, or null; make them equally long"
        )
    return stop


def _begin_lists(body: bytes, place: int, stop: int, width: int) -> bool:
    """Whether the levels, a bit each, are 0 at the multiples of `width` and nowhere else."""
    levels = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
    levels = levels[: max(stop - place, 0)]
    expected = np.ones_like(levels)
    expected[-place % width :: width] = 0
    return bool((levels == expected).all())
