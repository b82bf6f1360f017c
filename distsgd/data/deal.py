"""Dealing: which rows make up a mini-batch, cut into blocks, as a pure function of integers.

First of the four lines of the step loop: ``plan = deal(step)``. Nothing here knows how many workers
there are, so the same rows meet in the same block wherever it is computed; the state of the data is
one integer, the step. No I/O here.

The rows of a split, in shard order, are owned by lanes, each a range of neighbours. An epoch is
`rounds` full rounds in which the lanes take turns in strided groups, and a rest that is listed lane
by lane and cut into mini-batches, of which the last may be short: every row is used exactly once an
epoch, and nothing is padded or dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distsgd.chance import Purpose, permutation

WINDOW_BYTES = 16 * 1024 * 1024


class Block(NamedTuple):
    """The unit of computing: positions ``first`` to ``last`` (excluded) of a lane in one epoch."""

    lane: int
    piece: int  # Number of this block among those of its lane in the step.
    first: int
    last: int


def cut(lane: int, first: int, last: int, block_rows: int) -> list[Block]:
    """Cut a run of positions into equal pieces of at most `block_rows` rows.

    >>> cut(3, 0, 10, 4)  # doctest: +NORMALIZE_WHITESPACE
    [Block(lane=3, piece=0, first=0, last=3), Block(lane=3, piece=1, first=3, last=6), Block(lane=3,
    piece=2, first=6, last=10)]
    """
    size = last - first
    if size <= block_rows:
        return [Block(lane, 0, first, last)] if size else []
    pieces = -(-size // block_rows)
    return [
        Block(lane, i, first + size * i // pieces, first + size * (i + 1) // pieces)
        for i in range(pieces)
    ]


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit` (at least 1).

    >>> largest_divisor(16, 5)
    4
    """
    return max(d for d in range(1, max(1, min(number, limit)) + 1) if number % d == 0)


@dataclass(frozen=True, slots=True)
class Deal:
    """How the rows of one split are dealt to mini-batches; all sizes in rows.

    Build it with :meth:`of`, which fills in what "auto" means.
    """

    num_rows: int
    batch_rows: int
    lanes: int
    lane_rows: int
    block_rows: int
    used_lanes: int  # Lanes that take part in one full step.
    groups: int  # Steps in one full round: lanes // used_lanes.
    rounds: int  # Full rounds in one epoch.

    @classmethod
    def of(
        cls,
        num_rows: int,
        batch_rows: int,
        *,
        lanes: int = 16,
        lane_rows: int | None = None,
        block_rows: int = 256,
    ) -> Deal:
        """Deal `num_rows` rows to mini-batches of `batch_rows` (more than there are means all).

        >>> deal = Deal.of(20, 6, lanes=4, lane_rows=3)
        >>> [  # doctest: +NORMALIZE_WHITESPACE
        ...     [(b.lane, b.first, b.last) for b in deal.blocks(t)]
        ...     for t in range(deal.steps_per_epoch)
        ... ]
        [[(0, 0, 3), (2, 0, 3)], [(1, 0, 3), (3, 0, 3)], [(0, 3, 5), (1, 3, 5), (2, 3, 5)], [(3, 3,
        5)]]
        """
        assert num_rows >= 1
        assert batch_rows >= 1
        batch = min(batch_rows, num_rows)
        lane_rows = lane_rows or min(256, max(32, batch // 4))
        used = largest_divisor(lanes, batch // lane_rows)
        groups = lanes // used
        return cls(
            num_rows,
            batch,
            lanes,
            lane_rows,
            block_rows,
            used,
            groups,
            num_rows // (groups * batch),
        )

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches in one epoch, the short last one included."""
        return -(-self.num_rows // self.batch_rows)

    def lane_size(self, lane: int) -> int:
        """Rows that `lane` owns."""
        return (self.num_rows + lane) // self.lanes

    def lane_starts(self) -> list[int]:
        """The first row of each lane, and the number of rows at the end; length ``lanes + 1``."""
        starts = [0]
        for lane in range(self.lanes):
            starts.append(starts[-1] + self.lane_size(lane))
        return starts

    def num_samples(self, step: int) -> int:
        """Rows of the mini-batch of global step `step`."""
        within = step % self.steps_per_epoch
        return min(self.batch_rows, self.num_rows - within * self.batch_rows)

    def blocks(self, step: int) -> list[Block]:
        """The blocks of global step `step`, in lane order."""
        within = step % self.steps_per_epoch
        if within >= self.rounds * self.groups:
            return self._rest_blocks(within - self.rounds * self.groups)
        turn, group = divmod(within, self.groups)
        start, end, used = turn * self.batch_rows, (turn + 1) * self.batch_rows, self.used_lanes
        if used == 1 and self.batch_rows <= self.block_rows:  # The usual small batch, quickly.
            return [Block(group, 0, start, end)]
        blocks: list[Block] = []
        for j in range(used):
            lane = j * self.groups + group
            blocks += cut(lane, (start + j) // used, (end + j) // used, self.block_rows)
        return blocks

    def order_key(self, step: int) -> int:
        """What keys the order of the rows of `step`: its epoch."""
        return step // self.steps_per_epoch

    def row_order(self, *, seed: int, row_bytes: int) -> RowOrder:
        """From positions to rows."""
        return RowOrder(self, seed=seed, row_bytes=row_bytes)

    def evaluation_blocks(self, num_rows: int) -> list[Block]:
        """The blocks of `num_rows` rows of another split, in order, as of one lane."""
        return cut(0, 0, num_rows, self.block_rows)

    @property
    def most_blocks_per_lane(self) -> int:
        """The most blocks into which a lane is cut in any step."""
        return -(-min(self.batch_rows, self.lane_size(self.lanes - 1)) // self.block_rows)

    def _rest_blocks(self, index: int) -> list[Block]:
        """Blocks of mini-batch `index` of what the full rounds leave over."""
        skip, want = index * self.batch_rows, self.batch_rows
        runs: list[tuple[int, int, int]] = []
        for lane, first, last in self._rest_runs():
            size = last - first
            if skip >= size:
                skip -= size
                continue
            taken = min(size - skip, want)
            runs.append((lane, first + skip, first + skip + taken))
            skip, want = 0, want - taken
            if not want:
                break
        return [
            block
            for lane, first, last in sorted(runs)
            for block in cut(lane, first, last, self.block_rows)
        ]

    def _rest_runs(self) -> list[tuple[int, int, int]]:
        """What each lane still has after the full rounds, in the order in which it is used."""
        used, done = self.used_lanes, self.rounds * self.batch_rows
        return [
            (j * self.groups + g, (done + j) // used, self.lane_size(j * self.groups + g))
            for g in range(self.groups)
            for j in range(used)
        ]


def rows_in_window(row_bytes: int) -> int:
    """Rows of one window: the largest power of two that fits into 16 MiB.

    So that big data is read in neighbourhoods.
    """
    return 1 << (max(1, WINDOW_BYTES // row_bytes).bit_length() - 1)


class RowOrder:
    """Positions of a lane to row numbers.

    Each epoch visits the lane's windows, and the rows in each, in a keyed order.

    Keeps the order of one window a lane; a process that reads some lanes in sequence sorts each
    window once an epoch.
    """

    def __init__(self, deal: Deal, *, seed: int, row_bytes: int) -> None:
        self._seed = seed
        self._starts = deal.lane_starts()
        self._window = rows_in_window(row_bytes)
        self._visits: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._orders: dict[int, tuple[int, int, NDArray[np.int64]]] = {}

    def rows_inplace(self, epoch: int, block: Block, rows_N: NDArray[np.int64]) -> None:
        """Write the row numbers of `block` in `epoch` into `rows_N`, int64 ``[N]``."""
        position, done = block.first, 0
        while position < block.last:
            visit, offset, length = self._locate(epoch, block.lane, position)
            order = self._window_order(epoch, block.lane, visit)
            count = min(length - offset, block.last - position)
            rows_N[done : done + count] = order[offset : offset + count]
            position += count
            done += count

    def _locate(self, epoch: int, lane: int, position: int) -> tuple[int, int, int]:
        """The visit that holds `position`, the offset in it, its length in rows."""
        window = self._window
        size = self._starts[lane + 1] - self._starts[lane]
        short = size % window
        if not short:
            return position // window, position % window, window
        visits = self._visit_order(epoch, lane)
        # The short window, the lane's last, is visited somewhere in the middle.
        before = int(np.flatnonzero(visits == len(visits) - 1)[0]) if len(visits) > 1 else 0
        if position < before * window:
            return position // window, position % window, window
        if position < before * window + short:
            return before, position - before * window, short
        behind = position - before * window - short
        return before + 1 + behind // window, behind % window, window

    def _visit_order(self, epoch: int, lane: int) -> NDArray[np.int64]:
        known = self._visits.get(lane)
        if known is None or known[0] != epoch:
            size = self._starts[lane + 1] - self._starts[lane]
            order = permutation(
                self._seed, Purpose.WINDOW_ORDER, epoch, lane, size=-(-size // self._window)
            )
            known = self._visits[lane] = (epoch, order)
        return known[1]

    def _window_order(self, epoch: int, lane: int, visit: int) -> NDArray[np.int64]:
        """Row numbers of the window that is visited as number `visit`."""
        known = self._orders.get(lane)
        if known is None or known[0] != epoch or known[1] != visit:
            window = int(self._visit_order(epoch, lane)[visit])
            first = self._starts[lane] + window * self._window
            size = min(self._window, self._starts[lane + 1] - first)
            rows = permutation(self._seed, Purpose.ROW_ORDER, epoch, lane, window, size=size)
            rows += first
            known = self._orders[lane] = (epoch, visit, rows)
        return known[2]
