"""Spans of a flat vector that stay in the cache from one operation to the next. No I/O here.

What is done to a vector element by element gives the same bits chunk by chunk; done so, a step
touches main memory once where it would otherwise once an operation.
"""

from __future__ import annotations

from functools import lru_cache

# Large, as each chunk costs a microsecond an operation; small enough for a core's own cache to hold
# the chunks of weights, sum and state that a step works on. Part of the bits of a squared norm.
CHUNK_LENGTH = 1 << 16


@lru_cache(maxsize=64)
def chunks(length: int) -> tuple[slice, ...]:
    """Slices of at most `CHUNK_LENGTH` that cover ``range(length)`` in order.

    >>> chunks(70_000)
    (slice(0, 65536, None), slice(65536, 70000, None))
    """
    starts = range(0, length, CHUNK_LENGTH)
    return tuple(slice(start, min(start + CHUNK_LENGTH, length)) for start in starts)
