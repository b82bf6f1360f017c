from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.blocks import Blocking
from distsgd.data.sampler import BatchSampler
from distsgd.data.windows import (
    MOST_WINDOW_BYTES,
    Windows,
    rows_in_window,
    same_window_meeting,
)
from tests.surprise import is_as_chance
from tests.unit.data.test_sampler import batches, meetings

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
