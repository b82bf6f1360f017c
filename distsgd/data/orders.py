"""From places of mini-batches to rows: the order of an epoch, drawn row by row or in windows.

Any row may follow any other where all of them are in memory: `EpochOrder`. A random row from an
uncached file costs a hundred times one from the cache. So the windows of an epoch, each a range of
neighbouring rows, are permuted, laid end to end, and cut into as many lanes of equal length as the
configuration says: `WindowOrder`. A lane walks through its windows, two of them pooled and permuted
at a time, and every mini-batch takes as many rows from each lane as from any other. Rows lie at
random in the windows already (see `shards`), so that a mini-batch is close to a random sample: only
rows of one window meet more often than chance says (`same_window_meeting`).

An order of millions of rows takes longer than many steps to build. It is built in a thread while
steps before it are made; numpy lets other threads work meanwhile. No I/O here.

Letters: N rows, L lanes; a lane's *positions* count its rows in the order in which it gives them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distsgd.base.random_keys import Purpose, permutation

Int64 = NDArray[np.int64]
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


class EpochOrder:
    """Place i of step t of an epoch is row ``order[t * batch_rows + i]`` of its permutation."""

    def __init__(self, num_rows: int, batch_rows: int, seed: int) -> None:
        self._num_rows, self._batch_rows, self._seed = num_rows, batch_rows, seed
        self._steps_per_epoch = -(-num_rows // batch_rows)
        self._orders = BuiltAhead(self._build, one_thread())
        self._epoch = -1
        self._order: Order = np.empty(0, np.uint32)
        self._is_next_begun = True

    def rows_inplace(self, step: int, first: int, last: int, rows_N: Int64) -> None:
        """Write the row numbers of places ``first`` to ``last - 1`` of `step`; int64 ``[N]``."""
        epoch, within = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._orders.get(epoch)
            self._is_next_begun = self._num_rows <= FEW_ROWS
        elif not self._is_next_begun:  # Not in an epoch's first step, which has enough to wait for.
            self._orders.expect(epoch + 1, after=epoch)
            self._is_next_begun = True
        start = within * self._batch_rows
        rows_N[:] = self._order[start + first : start + last]

    def _build(self, epoch: int) -> Order:
        size = self._num_rows
        return narrowed(permutation(self._seed, Purpose.EPOCH_ORDER, epoch, size=size), size)


MOST_WINDOW_ROWS = 1 << 16
MOST_WINDOW_BYTES = 16 << 20
MOST_ORDER_ROWS = 1 << 22  # Of one window a lane; the orders of four are kept: 64 MiB in all.
WINDOWS_A_LANE = 4
POOLED = 2  # Windows that a lane draws from at a time.


def rows_in_window(num_rows: int, lanes: int, row_bytes: int) -> int:
    """Rows of a window: a power of two, and four windows a lane where there are rows enough.

    >>> rows_in_window(10**9, 16, 784 * 4)
    4096
    """
    most = min(
        MOST_WINDOW_ROWS,
        MOST_WINDOW_BYTES // row_bytes,
        num_rows // (WINDOWS_A_LANE * lanes),
        MOST_ORDER_ROWS // lanes,
    )
    return 1 << (max(1, most).bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a split, and the lanes they are cut into; all sizes in rows."""

    num_rows: int
    lanes: int
    window_rows: int

    @property
    def num_windows(self) -> int:
        """Windows, of which the last may be short."""
        return -(-self.num_rows // self.window_rows)

    @property
    def hot_rows(self) -> int:
        """Rows that are drawn from at a time."""
        return min(self.num_rows, POOLED * self.lanes * self.window_rows)

    def given_before(self, lane: int, end: int) -> int:
        """Of the first `end` rows of an epoch, those that lanes below `lane` give.

        Lane j gives ``(end + j) // L`` rows.
        """
        return lane * (end // self.lanes) + max(0, lane - self.lanes + end % self.lanes)

    def lane_start(self, lane: int) -> int:
        """Where `lane` begins in the windows laid end to end."""
        return self.given_before(lane, self.num_rows)


def same_window_meeting(window_rows: int, rows_of_lane: int) -> float:
    """How likely two rows of one window are to meet in the mini-batch of one of them.

    Of a lane that gives `rows_of_lane` rows to each mini-batch, where these divide the pool of two
    whole windows. By chance alone it were ``(B - 1) / (N - 1)``.

    >>> round(same_window_meeting(4096, 16), 6)
    0.001831
    """
    return (rows_of_lane - 1) / (POOLED * window_rows - 1)


class _Epoch:
    """The windows of an epoch laid end to end."""

    def __init__(self, windows: Windows, order_W: Order) -> None:
        self._window_rows, self._order_W = windows.window_rows, order_W
        self._short = windows.num_rows % windows.window_rows or windows.window_rows
        self._short_at = int(np.flatnonzero(order_W == windows.num_windows - 1)[0])
        self._short_end = self._short_at * windows.window_rows + self._short

    def start(self, index: int) -> int:
        """Where window number `index` of the epoch begins."""
        missing = self._window_rows - self._short if index > self._short_at else 0
        return index * self._window_rows - missing

    def index(self, at: int) -> int:
        """Number of the window in which `at` lies."""
        if at < self._short_end:
            return min(at // self._window_rows, self._short_at)
        return self._short_at + 1 + (at - self._short_end) // self._window_rows

    def rows(self, index: int, first: int, last: int) -> range:
        """The rows at ``first`` to ``last - 1``, which lie in window number `index`."""
        shift = int(self._order_W[index]) * self._window_rows - self.start(index)
        return range(first + shift, last + shift)


class _Pool(NamedTuple):
    """What a lane draws from: its positions ``first`` to ``last - 1``, rows of two windows."""

    epoch: int
    lane: int
    number: int
    first: int
    last: int
    one: range
    other: range


class WindowOrder:
    """From places of mini-batches to rows, for one process, of whatever lanes it is asked for."""

    def __init__(
        self, windows: Windows, batch_rows: int, seed: int, *, will_need: Callable[[range], None]
    ) -> None:
        self._windows, self._batch_rows, self._seed = windows, batch_rows, seed
        self._steps_per_epoch = -(-windows.num_rows // batch_rows)
        self._will_need = will_need
        self._thread = one_thread()
        self._epochs: dict[int, _Epoch] = {}
        self._drawn: dict[int, BuiltAhead[_Pool]] = {}  # Of each lane.
        self._current: dict[int, tuple[_Pool, Order]] = {}  # The same: where it is.
        # Pools whose followers are still to be begun, by lane: its newest alone, however many a
        # block has gone through.
        self._unfollowed: dict[int, _Pool] = {}

    def rows_inplace(self, step: int, first: int, last: int, rows_N: Int64) -> None:
        """Write the row numbers of places ``first`` to ``last - 1`` of `step`; int64 ``[N]``."""
        windows = self._windows
        if self._unfollowed:
            self._expect_following()
        epoch, within = divmod(step, self._steps_per_epoch)
        start = within * self._batch_rows
        end = min(windows.num_rows, start + self._batch_rows)

        def places_before(lane: int) -> int:
            return windows.given_before(lane, end) - windows.given_before(lane, start)

        lane = bisect_right(range(windows.lanes), first, key=places_before) - 1
        place = first
        while place < last:
            count = min(last, places_before(lane + 1)) - place
            if count > 0:
                position = (start + lane) // windows.lanes + place - places_before(lane)
                self._draw(epoch, lane, position, rows_N[place - first : place - first + count])
                place += count
            lane += 1

    def _draw(self, epoch: int, lane: int, position: int, rows_N: Int64) -> None:
        """Write the rows of `lane` from `position` on."""
        while len(rows_N):
            pool, order = self._pool_with_order(epoch, lane, position)
            drawn = order[position - pool.first : position - pool.first + len(rows_N)]
            rows_N[: len(drawn)] = drawn
            rows_N, position = rows_N[len(drawn) :], position + len(drawn)

    def _pool_with_order(self, epoch: int, lane: int, position: int) -> tuple[_Pool, Order]:
        """The pool that holds `position`, which is remembered as one that another will follow."""
        current = self._current.get(lane)
        if current is not None:
            pool = current[0]
            if pool.epoch == epoch and pool.first <= position < pool.last:
                return current
        pool = self._pool_at(epoch, lane, position)
        drawn = self._drawn.setdefault(lane, BuiltAhead(self._pool_order, self._thread))
        current = self._current[lane] = pool, drawn.get(pool)
        if pool.last - pool.first > FEW_ROWS:
            self._unfollowed[lane] = pool
        return current

    def _expect_following(self) -> None:
        """Begin the order of what follows one pool: lanes are done with theirs all at a time."""
        lane, windows = next(iter(self._unfollowed)), self._windows
        pool = self._unfollowed.pop(lane)
        is_last = pool.last == windows.lane_start(lane + 1) - windows.lane_start(lane)
        following = (pool.epoch + 1, lane, 0) if is_last else (pool.epoch, lane, pool.last)
        self._drawn[lane].expect(self._pool_at(*following), after=pool)

    def _pool_at(self, epoch: int, lane: int, position: int) -> _Pool:
        """Where the pool of `position` lies: windows of `epoch`, cut at the lane's ends."""
        laid = self._laid(epoch)
        start, end = self._windows.lane_start(lane), self._windows.lane_start(lane + 1)
        first_window = laid.index(start)
        number = (laid.index(start + position) - first_window) // POOLED
        window = first_window + POOLED * number
        low = max(start, laid.start(window))
        middle, high = min(end, laid.start(window + 1)), min(end, laid.start(window + 2))
        one = laid.rows(window, low, middle)
        other = laid.rows(window + 1, middle, high) if middle < high else range(0)
        return _Pool(epoch, lane, number, low - start, high - start, one, other)

    def _pool_order(self, pool: _Pool) -> Order:
        """The rows of a pool, in the order in which they are given; begins to read them."""
        for window in (pool.one, pool.other):
            self._will_need(window)
        key = (pool.epoch, pool.lane, pool.number)
        rows_N = permutation(self._seed, Purpose.ROW_ORDER, *key, size=pool.last - pool.first)
        is_other_N = rows_N >= len(pool.one)
        rows_N += pool.one.start
        rows_N[is_other_N] += pool.other.start - pool.one.stop
        return narrowed(rows_N, self._windows.num_rows)

    def _laid(self, epoch: int) -> _Epoch:
        found = self._epochs.get(epoch)
        if found is None:
            while len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            size = self._windows.num_windows
            order_W = permutation(self._seed, Purpose.WINDOW_ORDER, epoch, size=size)
            found = self._epochs[epoch] = _Epoch(self._windows, order_W.astype(np.uint32))
        return found
