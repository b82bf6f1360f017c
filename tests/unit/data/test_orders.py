from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.orders import (
    MOST_WINDOW_BYTES,
    BuiltAhead,
    Order,
    Windows,
    one_thread,
    rows_in_window,
    same_window_meeting,
)
from distsgd.data.sampler import BatchSampler, Blocking, Sampler
from distsgd.lessons.two_stage import TwoStageSampler
from tests.surprise import is_as_chance
from tests.unit.data.test_sampler import batches, meetings

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


LANES = 4


def sampler_of(num_rows: int, batch: int, *, window: int, seed: int = 0) -> BatchSampler:
    blocking = Blocking.of(batch, lanes=LANES, lane_rows=None, block_rows=256)
    row_bytes = MOST_WINDOW_BYTES // window
    return BatchSampler.of(
        num_rows, batch, blocking=blocking, seed=seed, shuffle="windows", row_bytes=row_bytes
    )


@pytest.mark.parametrize(
    ("num_rows", "lanes", "row_bytes", "rows"),
    [
        (10**9, 16, 1, 1 << 16),
        (10**9, 16, 784 * 4, 4096),
        (10**9, 16, MOST_WINDOW_BYTES // 5, 4),
        (10**9, 16, 2 * MOST_WINDOW_BYTES, 1),
        (10**9, 256, 1, 1 << 14),
        (64 * 100, 16, 1, 64),
        (10, 16, 1, 1),
    ],
)
def test_window_is_bounded_by_rows_bytes_data_and_memory(
    num_rows: int, lanes: int, row_bytes: int, rows: int
) -> None:
    assert rows_in_window(num_rows, lanes, row_bytes) == rows


@given(st.integers(1, 500), st.integers(1, 20), st.integers(0, 20), st.integers(0, 500))
def test_rows_given_by_lanes_below_are_their_sum(
    num_rows: int, lanes: int, lane: int, end: int
) -> None:
    windows, lane, end = Windows(num_rows, lanes, 1), min(lane, lanes), min(end, num_rows)
    assert windows.given_before(lane, end) == sum((end + j) // lanes for j in range(lane))
    assert windows.given_before(lanes, end) == end


@settings(max_examples=200, deadline=None)
@given(
    num_rows=st.integers(4 * LANES, 600),
    batch=st.integers(1, 80),
    window=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 1 << 40),
)
def test_rows_of_a_mini_batch_come_from_as_many_windows_as_lanes(
    num_rows: int, batch: int, window: int, seed: int
) -> None:
    sampler = sampler_of(num_rows, batch, window=window, seed=seed)
    assert sampler.windows is not None
    assert sampler.windows.num_windows >= 4 * LANES
    size = sampler.windows.window_rows
    for epoch in range(2):
        for rows in batches(sampler, epoch):
            assert len(set((rows // size).tolist())) >= min(len(rows), LANES)


def test_rows_of_one_window_meet_as_often_as_the_formula_says() -> None:
    num_rows, batch, window, trials = 512, 16, 16, 600
    counts = np.asarray(
        sum(meetings(sampler_of(num_rows, batch, window=window, seed=s)) for s in range(trials))
    )
    assert sampler_of(num_rows, batch, window=window).describe()["window_rows"] == window
    one, other = np.triu_indices(num_rows, 1)
    is_same = one // window == other // window
    same = same_window_meeting(window, batch // LANES)
    assert is_as_chance(counts[one, other][is_same], trials, same)
    # What they meet more often, rows of different windows meet more rarely.
    different = ((batch - 1) - (window - 1) * same) / (num_rows - window)
    assert is_as_chance(counts[one, other][~is_same], trials, different)
    assert not is_as_chance(counts[one, other], trials, (batch - 1) / (num_rows - 1))


def test_every_row_is_at_every_step_as_often_as_chance_says() -> None:
    num_rows, batch, trials = 130, 20, 800
    steps = -(-num_rows // batch)
    counts = np.zeros((num_rows, steps), np.int64)
    for seed in range(trials):
        for step, rows in enumerate(batches(sampler_of(num_rows, batch, window=4, seed=seed))):
            counts[rows, step] += 1
    sizes = np.array([sampler_of(num_rows, batch, window=4).num_samples(s) for s in range(steps)])
    assert is_as_chance(counts, trials, sizes / num_rows)


def test_windows_are_visited_in_another_order_each_epoch() -> None:
    num_rows, window, trials = 256, 16, 600
    counts = np.zeros(num_rows // window, np.int64)
    for seed in range(trials):
        first_rows = next(batches(sampler_of(num_rows, 4, window=window, seed=seed)))
        counts[first_rows[0] // window] += 1
    assert is_as_chance(counts, trials, window / num_rows)
    sampler = sampler_of(num_rows, 4, window=window)
    first = {tuple((next(batches(sampler, epoch)) // window).tolist()) for epoch in range(20)}
    assert len(first) >= 19


def test_windows_are_asked_for_before_their_rows_are_drawn() -> None:
    sampler, asked = sampler_of(1 << 14, 64, window=1 << 10), set[int]()
    order, rows = sampler.row_order(asked.update), np.empty(64, np.int64)
    for step in range(2 * sampler.steps_per_epoch):
        order.rows_inplace(step, 0, 64, rows)
        assert asked >= set(rows.tolist())


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_rows_in_use_are_those_of_two_windows_a_lane(batch: int) -> None:
    sampler = sampler_of(1 << 12, batch, window=16)
    assert sampler.hot_rows == 2 * LANES * 16
    order = np.concatenate(list(batches(sampler)))
    # A pool is used up before the next begins: no window is met again after two pools' time.
    positions = np.empty(1 << 12, np.int64)
    positions[order] = np.arange(1 << 12)
    spans = np.ptp(positions.reshape(-1, 16), axis=1)
    whole = np.sort(spans)[: len(spans) - 2 * LANES]  # Windows that two lanes share are apart.
    assert whole.max() <= 2 * LANES * 16 + batch
