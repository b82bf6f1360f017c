"""The batch sampler: which rows a mini-batch has, and its blocks; pure functions of integers.

An epoch is a keyed permutation of all rows, and a mini-batch the next part of it: a uniform random
sample without replacement, each row once an epoch, nothing padded or dropped. Nothing here knows
how many workers there are, so the same rows meet in the same block wherever it is computed; the
state of the data is one integer, the step. How rows are drawn: `orders`. No I/O here.

A mini-batch of ``b`` rows has the places 0 to ``b - 1``. A block is a range of them: the unit of
computing. Blocks depend on sizes alone and not on the step, so that a run has few partitions, each
made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from distsgd.data.orders import MOST_NARROW_ROWS, EpochOrder, WindowOrder, Windows, rows_in_window

NO_NEIGHBOUR = 1 << 16  # Higher than every separator: the subtree ends here.
AUTO_LANE_ROWS = (32, 256)


class Block(NamedTuple):
    """Places ``first`` to ``last`` (excluded) of a mini-batch; `number` is its leaf in the tree."""

    number: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Partition:
    """The blocks of a mini-batch, in order, and what the tree needs to know of them.

    Attributes:
        blocks: None of them empty.
        separators: Before each block and behind the last, ``len(blocks) + 1`` numbers: see
            `separators_of`.
        num_leaves: Block numbers are below it.
    """

    blocks: tuple[Block, ...]
    separators: tuple[int, ...]
    num_leaves: int


def separators_of(numbers: list[int]) -> tuple[int, ...]:
    """The separator before each of these block numbers and behind the last.

    The tree is the binary trie of the numbers: two neighbours are joined at the highest bit in
    which they differ, and that bit is their separator.

    >>> separators_of([0, 1, 2])
    (65536, 1, 2, 65536)
    """
    between = [(a ^ b).bit_length() for a, b in pairwise(numbers)]
    return (NO_NEIGHBOUR, *between, NO_NEIGHBOUR)


@lru_cache(maxsize=16)
def partition_of(num_rows: int, num_leaves: int) -> Partition:
    """Cut `num_rows` places into `num_leaves` ranges of about equal size; empty ones are left out.

    >>> partition_of(10, 3).blocks  # doctest: +NORMALIZE_WHITESPACE
    (Block(number=0, first=0, last=3), Block(number=1, first=3, last=6), Block(number=2, first=6,
    last=10))
    """
    cuts = [num_rows * i // num_leaves for i in range(num_leaves + 1)]
    ranges = enumerate(pairwise(cuts))
    blocks = tuple(Block(i, first, last) for i, (first, last) in ranges if first < last)
    return Partition(blocks, separators_of([block.number for block in blocks]), num_leaves)


@dataclass(frozen=True, slots=True)
class Blocking:
    """The rule by which mini-batches are cut into blocks; sizes in rows."""

    lanes: int
    lane_rows: int
    block_rows: int

    @classmethod
    def of(cls, batch_rows: int, *, lanes: int, lane_rows: int | None, block_rows: int) -> Blocking:
        """The rule of a run whose full mini-batches have `batch_rows` rows.

        Args:
            batch_rows: 1 or more.
            lanes: A mini-batch has as many blocks, or a multiple, where it has rows enough.
            lane_rows: With fewer rows for each of them, it has fewer blocks; None: a quarter of the
                mini-batch, within 32 and 256.
            block_rows: The most rows of a block.
        """
        fewest, most = AUTO_LANE_ROWS
        return cls(lanes, lane_rows or min(most, max(fewest, batch_rows // 4)), block_rows)

    def num_leaves(self, num_rows: int) -> int:
        """Into how many ranges a mini-batch of `num_rows` rows is cut.

        >>> rule = Blocking.of(1024, lanes=16, lane_rows=None, block_rows=256)
        >>> [rule.num_leaves(rows) for rows in (1024, 600, 50)]
        [4, 4, 1]
        """
        streams = min(self.lanes, max(1, num_rows // self.lane_rows))
        streams = 1 << (streams.bit_length() - 1)  # The largest power of two that is no more.
        return streams * -(-num_rows // (streams * self.block_rows))

    def partition(self, num_rows: int) -> Partition:
        """The blocks of a mini-batch of `num_rows` rows."""
        return partition_of(num_rows, self.num_leaves(num_rows))

    def evaluation(self, num_rows: int) -> Partition:
        """The blocks of `num_rows` rows of another split, in stored order."""
        return partition_of(num_rows, max(1, -(-num_rows // self.block_rows)))


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
        """Write the row numbers of places ``first`` to ``last - 1`` of `step`.

        Args:
            step: Counted from 0, over all epochs.
            first: The first place in its mini-batch.
            last: The place after the last.
            rows_N: Gets them; int64, shape ``[last - first]``.
        """


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
            return EpochOrder(self.num_rows, self.batch_rows, self.seed)
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
