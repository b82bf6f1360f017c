"""The batch sampler: which rows make up a mini-batch, as a pure function of integers.

First line of the step loop. An epoch is a keyed permutation of all rows, and a
mini-batch the next part of it: a uniform random sample without replacement, each row once an epoch,
nothing padded or dropped. Nothing here knows how many workers there are, so the same rows meet in
the same block wherever it is computed; the state of the data is one integer, the step. No I/O here.

Where the rows are so many that a random one would have to come from a disk, the order is drawn in
neighbourhoods: see `windows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from distsgd.base.random_keys import Purpose, permutation
from distsgd.data.blocks import Blocking, Partition
from distsgd.data.built_ahead import (
    FEW_ROWS,
    MOST_NARROW_ROWS,
    BuiltAhead,
    Order,
    narrowed,
    one_thread,
)
from distsgd.data.windows import WindowOrder, Windows, rows_in_window

Int64 = NDArray[np.int64]
WillNeed = Callable[[range], None]
Shuffle = Literal["auto", "rows", "windows"]

# With more rows, or more bytes of features, "auto" shuffles windows. Fixed numbers: bits depend on
# them, and must not depend on a machine's memory.
MOST_SHUFFLED_ROWS = 1 << 22
MOST_SHUFFLED_BYTES = 1 << 31


def _is_in_memory(_: range) -> None:
    """There is nothing to be read ahead."""


class RowOrder(Protocol):
    """From places of mini-batches to rows; keeps what it has built, and its answers are pure."""

    def rows_inplace(self, step: int, first: int, last: int, rows_N: Int64) -> None:
        """Write the row numbers of places ``first`` to ``last - 1`` of `step`; int64 ``[N]``."""


class Sampler(Protocol):
    """Which rows make up the mini-batch of a step; immutable, the same in every process."""

    @property
    def num_rows(self) -> int:
        """Rows of the split."""

    @property
    def batch_rows(self) -> int:
        """Rows of a full mini-batch."""

    @property
    def blocking(self) -> Blocking:
        """How a mini-batch is cut into blocks."""

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches in one epoch, short ones included."""

    @property
    def most_leaves(self) -> int:
        """Every block number of every step is below it."""

    @property
    def hot_rows(self) -> int:
        """Rows that mini-batches are drawn from at a time."""

    @property
    def order_bytes(self) -> int:
        """Memory that the order of the rows takes in a process at most."""

    def num_samples(self, step: int) -> int:
        """Rows of the mini-batch of global step `step`."""

    def partition(self, step: int) -> Partition:
        """The blocks of global step `step`."""

    def row_order(self, will_need: WillNeed = _is_in_memory) -> RowOrder:
        """From places to rows, for one process; `will_need` hears of rows that are soon drawn."""

    def describe(self) -> dict[str, int | str]:
        """How mini-batches are drawn, for the record of a run."""


@dataclass(frozen=True, slots=True)
class BatchSampler:
    """Mini-batches from one permutation of all rows an epoch; build it with :meth:`of`.

    Attributes:
        windows: The neighbourhoods in which rows are shuffled; None: any row may follow any other.
        steps_per_epoch: Mini-batches in one epoch, the short last one included.
    """

    num_rows: int
    batch_rows: int
    seed: int
    blocking: Blocking
    windows: Windows | None
    steps_per_epoch: int = field(init=False)
    _full: Partition = field(init=False, repr=False, compare=False)
    _last: Partition = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        steps = -(-self.num_rows // self.batch_rows)
        last_rows = self.num_rows - (steps - 1) * self.batch_rows
        object.__setattr__(self, "steps_per_epoch", steps)
        object.__setattr__(self, "_full", self.blocking.partition(self.batch_rows))
        object.__setattr__(self, "_last", self.blocking.partition(last_rows))

    @classmethod
    def of(
        cls,
        num_rows: int,
        batch_rows: int,
        *,
        blocking: Blocking,
        seed: int = 0,
        shuffle: Shuffle = "auto",
        row_bytes: int = 1,
    ) -> BatchSampler:
        """A sampler of `num_rows` rows; more in a mini-batch than there are means all.

        Args:
            num_rows: 1 or more, at most `MOST_NARROW_ROWS` where `shuffle` is "rows".
            batch_rows: 1 or more.
            blocking: How mini-batches are cut into blocks.
            seed: Of the order of the rows.
            shuffle: "auto" is "rows" up to 2**22 rows and 2 GiB, and "windows" above.
            row_bytes: Of one row's features.

        >>> blocking = Blocking.of(4, lanes=1, lane_rows=None, block_rows=256)
        >>> sampler = BatchSampler.of(10, 4, blocking=blocking)
        >>> order = sampler.row_order()
        >>> for step in range(4):
        ...     rows = np.empty(sampler.num_samples(step), np.int64)
        ...     order.rows_inplace(step, 0, len(rows), rows)
        ...     print(rows.tolist())
        [9, 0, 1, 8]
        [3, 4, 7, 6]
        [2, 5]
        [5, 3, 8, 6]
        """
        assert num_rows >= 1
        assert batch_rows >= 1
        is_large = num_rows > MOST_SHUFFLED_ROWS or num_rows * row_bytes > MOST_SHUFFLED_BYTES
        windows = None
        if shuffle == "windows" or (shuffle == "auto" and is_large):
            lanes = blocking.lanes
            windows = Windows(num_rows, lanes, rows_in_window(num_rows, lanes, row_bytes))
        assert windows is not None or num_rows <= MOST_NARROW_ROWS
        return cls(num_rows, min(batch_rows, num_rows), seed, blocking, windows)

    @property
    def most_leaves(self) -> int:
        """Every block number of every step is below it."""
        return max(self._full.num_leaves, self._last.num_leaves)

    @property
    def hot_rows(self) -> int:
        """Rows that mini-batches are drawn from at a time."""
        return self.num_rows if self.windows is None else self.windows.hot_rows

    @property
    def order_bytes(self) -> int:
        """Memory that the order of the rows takes in a process at most."""
        # Two orders as uint32; one more as uint64, of what is being sorted.
        if self.windows is None:
            return 16 * self.num_rows
        return 8 * self.windows.hot_rows + 16 * self.windows.num_windows

    def num_samples(self, step: int) -> int:
        """Rows of the mini-batch of global step `step`."""
        within = step % self.steps_per_epoch
        return min(self.batch_rows, self.num_rows - within * self.batch_rows)

    def partition(self, step: int) -> Partition:
        """The blocks of global step `step`."""
        return self._full if (step + 1) % self.steps_per_epoch else self._last

    def row_order(self, will_need: WillNeed = _is_in_memory) -> RowOrder:
        """From places to rows, for one process; `will_need` hears of rows that are soon drawn."""
        if self.windows is None:
            return _EpochOrder(self)
        return WindowOrder(self.windows, self.batch_rows, self.seed, will_need=will_need)

    def describe(self) -> dict[str, int | str]:
        """How mini-batches are drawn, for the record of a run."""
        if self.windows is None:
            return {"shuffle": "rows"}
        return {"shuffle": "windows", "window_rows": self.windows.window_rows}


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """What a sampler of a run is made from; one of a user's own is called with it and its options.

    Attributes:
        num_rows: Training rows.
        size: Rows of a full mini-batch, at most `num_rows`; "full" for all.
        seed: Of all chance.
        shuffle: As for `BatchSampler.of`.
        row_bytes: Of one row's features.
        lanes: As for `Blocking.of`, like the two that follow.
    """

    num_rows: int
    size: int | Literal["full"]
    seed: int
    shuffle: Shuffle
    row_bytes: int
    lanes: int
    lane_rows: int | None
    block_rows: int

    @property
    def batch_rows(self) -> int:
        """Rows of a full mini-batch."""
        return self.num_rows if self.size == "full" else self.size

    def blocking(self, batch_rows: int) -> Blocking:
        """How mini-batches of `batch_rows` rows are cut into blocks."""
        return Blocking.of(
            batch_rows, lanes=self.lanes, lane_rows=self.lane_rows, block_rows=self.block_rows
        )

    def permutation(self, batch_rows: int, blocking: Blocking) -> BatchSampler:
        """Mini-batches of `batch_rows` rows from one permutation of all rows an epoch."""
        return BatchSampler.of(
            self.num_rows,
            batch_rows,
            blocking=blocking,
            seed=self.seed,
            shuffle=self.shuffle,
            row_bytes=self.row_bytes,
        )


class _EpochOrder:
    """Place i of step t of an epoch is row ``order[t * batch_rows + i]`` of its permutation."""

    def __init__(self, sampler: BatchSampler) -> None:
        self._num_rows, self._batch_rows = sampler.num_rows, sampler.batch_rows
        self._steps_per_epoch, self._seed = sampler.steps_per_epoch, sampler.seed
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
