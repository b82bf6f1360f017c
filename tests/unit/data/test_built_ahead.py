from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from distsgd.data.blocks import Blocking
from distsgd.data.built_ahead import BuiltAhead, Order, one_thread
from distsgd.data.sampler import BatchSampler, Sampler
from distsgd.lessons.two_stage import TwoStageSampler

NUM_ROWS, BATCH = 1 << 17, 256
EPOCH = NUM_ROWS // BATCH
BLOCKING = Blocking.of(BATCH, lanes=16, lane_rows=None, block_rows=256)
ROWS = BatchSampler.of(NUM_ROWS, BATCH, blocking=BLOCKING, shuffle="rows")


def test_what_is_built_ahead_is_built_once() -> None:
    built = list[int]()

    def build(key: int) -> Order:
        built.append(key)
        return np.full(1, key, np.uint32)

    orders = BuiltAhead(build, one_thread())
    assert orders.get(0)[0] == 0
    orders.expect(1, after=0)
    assert [int(orders.get(key)[0]) for key in (1, 0, 1)] == [1, 0, 1]
    assert built == [0, 1]


def test_error_in_the_thread_comes_out_where_its_array_is_asked_for() -> None:
    def build(key: int) -> Order:
        if key == 1:
            raise MemoryError("no room")
        return np.zeros(1, np.uint32)

    orders = BuiltAhead(build, one_thread())
    orders.get(0)
    orders.expect(1, after=0)
    with pytest.raises(MemoryError, match="no room"):
        orders.get(1)
    assert len(orders.get(2)) == 1


def most_bytes(call: Callable[[], object]) -> int:
    call()  # What is imported and made once is not counted.
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def walk(sampler: Sampler, steps: Iterable[int]) -> None:
    order = sampler.row_order()
    for step in steps:
        rows = np.empty(sampler.num_samples(step), np.int64)
        order.rows_inplace(step, 0, len(rows), rows)


@pytest.mark.parametrize(
    "steps",
    [
        [0, 1, EPOCH - 1, EPOCH, EPOCH + 1, 2 * EPOCH, 2 * EPOCH + 1, 3 * EPOCH],
        # A rollback, and blocks of other epochs than expected, while the next order is built.
        [5 * EPOCH, 5 * EPOCH + 1, 3 * EPOCH, 3 * EPOCH + 1, 9 * EPOCH, 9 * EPOCH + 1, EPOCH],
    ],
)
def test_order_takes_16_bytes_a_row_wherever_steps_go(steps: list[int]) -> None:
    assert ROWS.order_bytes == 16 * NUM_ROWS
    assert most_bytes(lambda: walk(ROWS, steps)) <= 1.02 * ROWS.order_bytes


@pytest.mark.parametrize("pool", [NUM_ROWS, NUM_ROWS // 4, 1000])
def test_pools_take_no_more_than_they_say(pool: int) -> None:
    pools = BatchSampler.of(NUM_ROWS, pool, blocking=BLOCKING, shuffle="rows")
    sampler = TwoStageSampler(pools, BATCH, BLOCKING)
    first = -(-pool // BATCH)
    steps = [0, 1, first, first + 1, 2 * first, 2 * first + 1, EPOCH, EPOCH + first, 2 * EPOCH]
    assert most_bytes(lambda: walk(sampler, steps)) <= 1.02 * sampler.order_bytes


def test_memory_does_not_grow_where_a_block_goes_through_several_pools_of_windows() -> None:
    num_rows = 1 << 15
    blocking = Blocking.of(num_rows, lanes=4, lane_rows=None, block_rows=num_rows)
    sampler = BatchSampler.of(num_rows, num_rows, blocking=blocking, shuffle="windows")
    order, rows = sampler.row_order(), np.empty(num_rows, np.int64)

    def epochs(first: int, last: int) -> None:
        for epoch in range(first, last):
            for block in sampler.partition(epoch).blocks:
                order.rows_inplace(epoch, block.first, block.last, rows[block.first : block.last])

    tracemalloc.start()
    try:
        epochs(0, 20)
        before = tracemalloc.get_traced_memory()[0]
        epochs(20, 120)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 64 << 10
