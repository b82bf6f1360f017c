"""Spans of a flat vector that stay in the cache from one operation to the next. No I/O here.

What is done to a vector element by element gives the same bits span by span; done so, a step
touches main memory once where it would otherwise once an operation.
"""

from __future__ import annotations

from functools import lru_cache

# Large, as each span costs a microsecond an operation; small enough for a core's own cache to hold
# the spans of weights, sum and state that a step works on. Part of the bits of a squared norm.
SPAN_LENGTH = 1 << 16


@lru_cache(maxsize=64)
def spans(length: int) -> tuple[slice, ...]:
    """Slices of at most `SPAN_LENGTH` that cover ``range(length)`` in order.

    >>> spans(70_000)
    (slice(0, 65536, None), slice(65536, 70000, None))
    """
    starts = range(0, length, SPAN_LENGTH)
    return tuple(slice(start, min(start + SPAN_LENGTH, length)) for start in starts)
