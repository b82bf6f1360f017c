"""Two-stage dealing: a pool of rows is drawn from the data, mini-batches are drawn from the pool.

First of the four lines of the step loop, in place of `Deal`: the same questions, the same kind of
answers, pure functions of integers. Each stage is a deal of its own: the first cuts an epoch into
pools as one-stage dealing cuts it into mini-batches, the second deals the places of a pool. So
every row is in one pool an epoch and in one mini-batch of it: nothing is repeated, padded or
dropped, and the last pool and the last mini-batch of a pool may be short. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsgd.chance import Purpose, permutation
from distsgd.data.deal import Block, Deal, RowOrder

_KEPT_POOLS = 2  # The present one, and the one that is read ahead.


@dataclass(frozen=True, slots=True)
class TwoStageDeal:
    """How pools are dealt to mini-batches; build it with :meth:`of`. All sizes in rows.

    Attributes:
        pools: Deals the rows to pools; its steps are the pools, counted through all epochs.
        within: Deals a full pool to mini-batches.
        last: Deals the short pool at the end of an epoch; None where all are full.
    """

    pools: Deal
    within: Deal
    last: Deal | None

    @classmethod
    def of(
        cls,
        num_rows: int,
        batch_rows: int,
        *,
        pool: int,
        lanes: int = 16,
        lane_rows: int | None = None,
        block_rows: int = 256,
    ) -> TwoStageDeal:
        """Deal `num_rows` rows to pools of `pool`, and those to mini-batches of `batch_rows`.

        >>> deal = TwoStageDeal.of(1000, 10, pool=50)
        >>> deal.steps_per_epoch, [deal.num_samples(step) for step in range(6)]
        (100, [10, 10, 10, 10, 10, 10])
        >>> deal = TwoStageDeal.of(7, 2, pool=5)
        >>> [deal.num_samples(step) for step in range(deal.steps_per_epoch)]
        [2, 2, 1, 2]
        """

        def dealt(rows: int, batch: int) -> Deal:
            return Deal.of(rows, batch, lanes=lanes, lane_rows=lane_rows, block_rows=block_rows)

        pools = dealt(num_rows, pool)
        # A batch of more rows than there are means all of them, here as in one stage.
        short = num_rows % pools.batch_rows
        return cls(
            pools, dealt(pools.batch_rows, batch_rows), dealt(short, batch_rows) if short else None
        )

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return self.pools.num_rows

    @property
    def batch_rows(self) -> int:
        """Rows of a full mini-batch."""
        return self.within.batch_rows

    @property
    def lanes(self) -> int:
        """Logical workers, among which the places of a pool are shared."""
        return self.within.lanes

    @property
    def block_rows(self) -> int:
        """The most rows of a block."""
        return self.within.block_rows

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches in one epoch: those of all pools."""
        last = self.last.steps_per_epoch if self.last else 0
        return self._full_pools * self.within.steps_per_epoch + last

    @property
    def most_blocks_per_lane(self) -> int:
        """The most blocks into which a lane is cut in any step."""
        last = self.last.most_blocks_per_lane if self.last else 0
        return max(self.within.most_blocks_per_lane, last)

    def num_samples(self, step: int) -> int:
        """Rows of the mini-batch of global step `step`."""
        deal, within = self._stage(step)
        return deal.num_samples(within)

    def blocks(self, step: int) -> list[Block]:
        """The blocks of global step `step`: positions of the lanes of its pool, in lane order."""
        deal, within = self._stage(step)
        return deal.blocks(within)

    def order_key(self, step: int) -> int:
        """What keys the order of the rows of `step`: the number of its pool, through all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        pool = min(within // self.within.steps_per_epoch, self._full_pools)
        return epoch * self.pools.steps_per_epoch + pool

    def evaluation_blocks(self, num_rows: int) -> list[Block]:
        """The blocks of `num_rows` rows of another split, as in one-stage dealing."""
        return self.pools.evaluation_blocks(num_rows)

    def row_order(self, *, seed: int, row_bytes: int) -> PoolOrder:
        """From positions to rows."""
        return PoolOrder(self, seed=seed, row_bytes=row_bytes)

    def of_pool(self, pool: int) -> Deal:
        """How pool number `pool` is dealt."""
        is_last = (pool + 1) % self.pools.steps_per_epoch == 0
        return self.last if is_last and self.last else self.within

    @property
    def _full_pools(self) -> int:
        return self.num_rows // self.pools.batch_rows

    def _stage(self, step: int) -> tuple[Deal, int]:
        """The deal of the pool of `step`, and the number of `step` in that pool."""
        within = step % self.steps_per_epoch
        pool = min(within // self.within.steps_per_epoch, self._full_pools)
        return self.of_pool(pool), within - pool * self.within.steps_per_epoch


class PoolOrder:
    """Positions of a lane of a pool to row numbers.

    A pool's rows are those that one-stage dealing would make a mini-batch of, in a keyed order; so
    big data is still read in neighbourhoods. Keeps the rows of two pools.
    """

    def __init__(self, deal: TwoStageDeal, *, seed: int, row_bytes: int) -> None:
        self._deal, self._seed = deal, seed
        self._rows = RowOrder(deal.pools, seed=seed, row_bytes=row_bytes)
        self._pools: dict[int, NDArray[np.int64]] = {}
        self._starts = {
            dealt.num_rows: dealt.lane_starts() for dealt in (deal.within, deal.last) if dealt
        }

    def rows_inplace(self, pool: int, block: Block, rows_N: NDArray[np.int64]) -> None:
        """Write the row numbers of `block` of pool number `pool` into `rows_N`, int64 ``[N]``."""
        rows = self._rows_of(pool)
        start = self._starts[len(rows)][block.lane]
        rows_N[:] = rows[start + block.first : start + block.last]

    def _rows_of(self, pool: int) -> NDArray[np.int64]:
        rows = self._pools.get(pool)
        if rows is None:
            rows = self._draw(pool)
            while len(self._pools) >= _KEPT_POOLS:
                del self._pools[next(iter(self._pools))]
            self._pools[pool] = rows
        return rows

    def _draw(self, pool: int) -> NDArray[np.int64]:
        """The rows of the pool, each in the place to which chance sends it."""
        pools = self._deal.pools
        rows = np.empty(pools.num_samples(pool), np.int64)
        done = 0
        for block in pools.blocks(pool):
            count = block.last - block.first
            key = pools.order_key(pool)
            self._rows.rows_inplace(key, block, rows[done : done + count])
            done += count
        return rows[permutation(self._seed, Purpose.SAMPLING, pool, size=len(rows))]
