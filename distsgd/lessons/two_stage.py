"""Two-stage sampling: a pool of rows is drawn from the data, mini-batches are drawn from the pool.

In place of `BatchSampler`: the same questions, the same kind of answers, pure functions of
integers. A pool is a mini-batch of the one-stage sampler, in a keyed order; the mini-batches are
its parts. So every row is in one pool an epoch and in one mini-batch of it: nothing is repeated,
padded or dropped, and the last pool and the last mini-batch of a pool may be short. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsgd.base.random_keys import Purpose, permutation
from distsgd.data.orders import Order, narrowed
from distsgd.data.sampler import BatchSampler, Blocking, Partition, RowOrder, SamplerSpec, WillNeed
from distsgd.errors import ConfigError

_KEPT_POOLS = 2  # The present one, and the one that is read ahead.
# Of a row of a pool, while it is drawn: as uint32 the pool that is kept, its own rows, and these in
# order; as int64 the order itself.
_POOL_BYTES = 20


@dataclass(frozen=True, slots=True)
class TwoStageSampler:
    """Pools, and mini-batches of a pool.

    Attributes:
        pools: Its mini-batches are the pools.
        within_rows: Rows of a full mini-batch; more than a pool has means all of the pool.
        blocking: How mini-batches are cut into blocks.
    """

    pools: BatchSampler
    within_rows: int
    blocking: Blocking

    @classmethod
    def of(cls, spec: SamplerSpec, *, pool: int = 50) -> TwoStageSampler:
        """The sampler of a run.

        Args:
            spec: Its rows; of a size "full" a mini-batch is the whole pool.
            pool: Rows of a pool.

        Raises:
            ConfigError: The pool is larger than the data, or smaller than a mini-batch.
        """
        if problems := _problems(spec, pool):
            raise ConfigError(problems)
        blocking = spec.blocking(min(spec.batch_rows, pool))
        return cls(spec.permutation(pool, blocking), spec.batch_rows, blocking)

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return self.pools.num_rows

    @property
    def batch_rows(self) -> int:
        """Rows of a full mini-batch."""
        return min(self.within_rows, self.pools.batch_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches in one epoch: those of all pools."""
        full_pools = self.pools.steps_per_epoch - 1
        return full_pools * self._steps_of_pool + -(-self._last_pool_rows // self.batch_rows)

    @property
    def most_leaves(self) -> int:
        """Every block number of every step is below it."""
        batch = self.batch_rows
        pools = (self.pools.batch_rows, self._last_pool_rows)
        sizes = {min(batch, pool) for pool in pools} | {pool % batch for pool in pools} - {0}
        return max(map(self.blocking.num_leaves, sizes))

    @property
    def hot_rows(self) -> int:
        """Rows that mini-batches are drawn from at a time."""
        return self.pools.hot_rows

    @property
    def order_bytes(self) -> int:
        """Memory that the order of the rows takes in a process at most."""
        return self.pools.order_bytes + _POOL_BYTES * self.pools.batch_rows

    def num_samples(self, step: int) -> int:
        """Rows of the mini-batch of global step `step`."""
        pool, within = self.pool_of(step)
        return min(self.batch_rows, self.pools.num_samples(pool) - within * self.batch_rows)

    def partition(self, step: int) -> Partition:
        """The blocks of global step `step`."""
        return self.blocking.partition(self.num_samples(step))

    def row_order(self, will_need: WillNeed = lambda _: None) -> RowOrder:
        """From places to rows, for one process; `will_need` hears of rows that are soon drawn."""
        return _PoolOrder(self, self.pools.row_order(will_need))

    def describe(self) -> dict[str, int | str]:
        """How mini-batches are drawn, for the record of a run."""
        return {**self.pools.describe(), "pool_rows": self.pools.batch_rows}

    def pool_of(self, step: int) -> tuple[int, int]:
        """The pool of global step `step`, counted through all epochs, and the step in that pool.

        >>> blocking = Blocking.of(2, lanes=1, lane_rows=None, block_rows=256)
        >>> sampler = TwoStageSampler(BatchSampler.of(7, 5, blocking=blocking), 2, blocking)
        >>> [(*sampler.pool_of(step), sampler.num_samples(step)) for step in range(5)]
        [(0, 0, 2), (0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 0, 2)]
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        pool = min(within // self._steps_of_pool, self.pools.steps_per_epoch - 1)
        return epoch * self.pools.steps_per_epoch + pool, within - self._steps_of_pool * pool

    @property
    def _steps_of_pool(self) -> int:
        return -(-self.pools.batch_rows // self.batch_rows)

    @property
    def _last_pool_rows(self) -> int:
        return self.pools.num_samples(self.pools.steps_per_epoch - 1)


def _problems(spec: SamplerSpec, pool: object) -> list[str]:
    way_out, rows = "set pool in [batch] sampler_options", spec.num_rows
    if not isinstance(pool, int) or isinstance(pool, bool) or not 1 <= pool <= rows:
        rule = f"must be 1 to {rows} (the training rows; {way_out})"
        return [f"pool of two-stage sampling is {pool!r}; {rule}"]
    if spec.size != "full" and spec.size > pool:
        rule = "mini-batches are drawn from the pool"
        way_out = f'({way_out} to at least size, or [batch] size to "full")'
        return [f"batch.size is {spec.size} and the pool {pool}; {rule} {way_out}"]
    return []


class _PoolOrder:
    """The rows of a pool, each in the place to which chance sends it. Keeps those of two pools."""

    def __init__(self, sampler: TwoStageSampler, rows: RowOrder) -> None:
        self._sampler, self._rows = sampler, rows
        self._pools: dict[int, Order] = {}

    def rows_inplace(self, step: int, first: int, last: int, rows_N: NDArray[np.int64]) -> None:
        """Write the row numbers of places ``first`` to ``last - 1`` of `step`; int64 ``[N]``."""
        pool, within = self._sampler.pool_of(step)
        start = within * self._sampler.batch_rows
        rows_N[:] = self._rows_of(pool)[start + first : start + last]

    def _rows_of(self, pool: int) -> Order:
        rows_P = self._pools.get(pool)
        if rows_P is None:
            while len(self._pools) >= _KEPT_POOLS:
                del self._pools[next(iter(self._pools))]
            rows_P = self._pools[pool] = self._draw(pool)
        return rows_P

    def _draw(self, pool: int) -> Order:
        pools = self._sampler.pools
        drawn_P = np.empty(pools.num_samples(pool), np.int64)
        self._rows.rows_inplace(pool, 0, len(drawn_P), drawn_P)
        rows_P = narrowed(drawn_P, pools.num_rows)
        del drawn_P
        key = divmod(pool, pools.steps_per_epoch)
        return rows_P[permutation(pools.seed, Purpose.SAMPLING, *key, size=len(rows_P))]
