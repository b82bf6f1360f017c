"""Arrays that take a while to build, built before they are needed, and few at a time.

The order of an epoch of millions of rows takes longer than many steps. It is built in a thread
while steps of the epoch before are made; numpy lets other threads work meanwhile. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.unsignedinteger[Any]]  # Row numbers, as narrow as they fit.
MOST_NARROW_ROWS = 1 << 32
# The order of fewer rows is built in about the time that it takes to have a thread do it.
FEW_ROWS = 1 << 10
K = TypeVar("K", bound=Hashable)


class BuiltAhead(Generic[K]):
    """At most two arrays by key: the one in use, and one more, which may be on its way.

    Args:
        build: Makes the array of a key; called in a thread of `threads` after `expect`.
        threads: Where; several may share one.
    """

    def __init__(self, build: Callable[[K], Order], threads: ThreadPoolExecutor) -> None:
        self._build, self._threads = build, threads
        self._kept: dict[K, Order] = {}
        self._coming: tuple[K, Future[Any]] | None = None

    def get(self, key: K) -> Order:
        """The array of `key`; blocks while it is built, which is bounded by its length."""
        if key in self._kept:
            found = self._kept.pop(key)
        elif self._coming is not None and self._coming[0] == key:
            coming, self._coming = self._coming[1], None
            found = coming.result()
        else:
            self._make_room()
            found = self._build(key)
        self._kept[key] = found  # Behind the others: the one that was used last.
        return found

    def expect(self, key: K, *, after: K) -> None:
        """`key` will be asked for next, and `after` is in use; returns at once."""
        if key in self._kept or self._coming is not None:
            return
        # What is behind goes before something new is made: two at a time, one of them growing.
        self._kept = {kept: array for kept, array in self._kept.items() if kept == after}
        self._coming = key, self._threads.submit(self._build, key)

    def _make_room(self) -> None:
        """Keep no more than what was used last, and let nothing else grow."""
        if self._coming is not None:
            # Another was asked for than expected, as after a rollback.
            coming, self._coming = self._coming[1], None
            if not coming.cancel():
                wait([coming])
        while len(self._kept) > 1:
            del self._kept[next(iter(self._kept))]


def narrowed(rows_N: NDArray[np.int64], num_rows: int) -> Order:
    """Row numbers below `num_rows`, as narrow as they fit; a copy."""
    return rows_N.astype(np.uint32 if num_rows <= MOST_NARROW_ROWS else np.uint64)


def one_thread() -> ThreadPoolExecutor:
    """A thread that starts with its first work, and ends with its owner."""
    return ThreadPoolExecutor(1, thread_name_prefix="distsgd-order")
