from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.data.sampler import BatchSampler, Blocking, Sampler, Shuffle, partition_of
from tests.surprise import is_as_chance

BLOCKINGS = st.builds(
    Blocking.of,
    st.integers(1, 500),
    lanes=st.sampled_from([1, 2, 3, 4, 7, 12, 16]),
    lane_rows=st.one_of(st.none(), st.integers(1, 40)),
    block_rows=st.one_of(st.integers(1, 20), st.just(256)),
)


@settings(max_examples=300, deadline=None)
@given(blocking=BLOCKINGS, num_rows=st.integers(1, 500))
def test_blocks_hold_every_place_once_in_order(blocking: Blocking, num_rows: int) -> None:
    blocks = blocking.partition(num_rows).blocks
    places = [place for block in blocks for place in range(block.first, block.last)]
    assert places == list(range(num_rows))
    assert all(1 <= block.last - block.first <= blocking.block_rows for block in blocks)


@settings(max_examples=300, deadline=None)
@given(blocking=BLOCKINGS, num_rows=st.integers(1, 500))
def test_block_numbers_rise_and_have_room_in_the_tree(blocking: Blocking, num_rows: int) -> None:
    partition = blocking.partition(num_rows)
    numbers = [block.number for block in partition.blocks]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] < partition.num_leaves == blocking.num_leaves(num_rows)
    assert len(partition.separators) == len(numbers) + 1
    between = [(a ^ b).bit_length() for a, b in pairwise(numbers)]
    assert list(partition.separators[1:-1]) == between


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (1, [1]),
        (50, [50]),
        (63, [63]),
        (64, [32, 32]),
        (256, [64] * 4),
        (1024, [256] * 4),
        (4096, [256] * 16),
        (10_000, [208, 208, 209, 208, 208, 209, 208, 208, 209, 208, 208, 209]),
    ],
)
def test_default_blocks_are_what_was_measured_as_best(batch: int, sizes: list[int]) -> None:
    blocking = Blocking.of(batch, lanes=16, lane_rows=None, block_rows=256)
    found = [block.last - block.first for block in blocking.partition(batch).blocks]
    assert found[: len(sizes)] == sizes
    assert sum(found) == batch


def test_short_mini_batch_is_cut_by_the_rule_of_the_full_one() -> None:
    blocking = Blocking.of(1024, lanes=16, lane_rows=None, block_rows=256)
    assert [blocking.num_leaves(rows) for rows in (1024, 1023, 511, 255, 1)] == [4, 4, 2, 1, 1]


def test_ranges_without_a_place_are_no_blocks() -> None:
    partition = Blocking.of(5, lanes=2, lane_rows=2, block_rows=1).partition(5)
    assert partition.num_leaves == 6
    assert [block.number for block in partition.blocks] == [1, 2, 3, 4, 5]


@given(num_rows=st.integers(0, 3000))
def test_evaluation_takes_every_row_once_in_order(num_rows: int) -> None:
    blocks = Blocking.of(10, lanes=16, lane_rows=None, block_rows=256).evaluation(num_rows).blocks
    rows = [row for block in blocks for row in range(block.first, block.last)]
    assert rows == list(range(num_rows))
    sizes = [block.last - block.first for block in blocks]
    assert len(blocks) == -(-num_rows // 256)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_same_sizes_are_cut_once() -> None:
    assert partition_of(1000, 7) is partition_of(1000, 7)


Int64 = NDArray[np.int64]


def sampler_of(
    num_rows: int, batch_rows: int, *, shuffle: Shuffle = "rows", seed: int = 0, lanes: int = 16
) -> BatchSampler:
    blocking = Blocking.of(batch_rows, lanes=lanes, lane_rows=None, block_rows=256)
    return BatchSampler.of(num_rows, batch_rows, blocking=blocking, seed=seed, shuffle=shuffle)


@st.composite
def samplers(draw: st.DrawFn) -> BatchSampler:
    num_rows = draw(st.integers(1, 400))
    batch_rows = draw(st.one_of(st.integers(1, 40), st.integers(1, 500)))
    blocking = Blocking.of(
        batch_rows,
        lanes=draw(st.sampled_from([1, 2, 3, 4, 7, 12, 16])),
        lane_rows=draw(st.one_of(st.none(), st.integers(1, 40))),
        block_rows=draw(st.one_of(st.integers(1, 20), st.just(256))),
    )
    return BatchSampler.of(
        num_rows,
        batch_rows,
        blocking=blocking,
        seed=draw(st.integers(0, 2**63)),
        shuffle=draw(st.sampled_from(("rows", "windows"))),
        row_bytes=draw(st.sampled_from((1, 1 << 20, 1 << 22))),
    )


def batches(sampler: Sampler, epoch: int = 0) -> Iterator[Int64]:
    """The rows of the mini-batches of an epoch, each in the order of its places."""
    order = sampler.row_order()
    for step in range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch):
        rows = np.empty(sampler.num_samples(step), np.int64)
        for block in sampler.partition(step).blocks:
            order.rows_inplace(step, block.first, block.last, rows[block.first : block.last])
        yield rows


def meetings(sampler: Sampler, epoch: int = 0) -> Int64:
    """How often each two rows are in one mini-batch of an epoch; shape ``[N, N]``."""
    counts = np.zeros((sampler.num_rows, sampler.num_rows), np.int64)
    for rows in batches(sampler, epoch):
        counts[np.ix_(rows, rows)] += 1
    return counts


@settings(max_examples=300, deadline=None)
@given(sampler=samplers(), epoch=st.integers(0, 3))
def test_every_row_is_used_once_an_epoch(sampler: BatchSampler, epoch: int) -> None:
    rows = np.concatenate(list(batches(sampler, epoch)))
    assert np.array_equal(np.sort(rows), np.arange(sampler.num_rows))


@settings(max_examples=200, deadline=None)
@given(sampler=samplers())
def test_every_mini_batch_is_full_but_the_last(sampler: BatchSampler) -> None:
    sizes = [sampler.num_samples(step) for step in range(sampler.steps_per_epoch)]
    assert [len(rows) for rows in batches(sampler)] == sizes
    assert set(sizes[:-1]) <= {sampler.batch_rows}
    assert 1 <= sizes[-1] <= sampler.batch_rows
    assert sum(sizes) == sampler.num_rows


@settings(max_examples=200, deadline=None)
@given(sampler=samplers(), data=st.data())
def test_rows_of_a_place_depend_on_nothing_asked_before(
    sampler: BatchSampler, data: st.DataObject
) -> None:
    used = sampler.row_order()
    for _ in range(6):
        step = data.draw(st.integers(0, 4 * sampler.steps_per_epoch))
        size = sampler.num_samples(step)
        first = data.draw(st.integers(0, size - 1))
        last = data.draw(st.integers(first + 1, size))
        found, whole = np.empty(last - first, np.int64), np.empty(size, np.int64)
        used.rows_inplace(step, first, last, found)
        sampler.row_order().rows_inplace(step, 0, size, whole)
        assert np.array_equal(found, whole[first:last])


@pytest.mark.parametrize("shuffle", ["rows", "windows"])
def test_order_that_was_built_ahead_is_the_same(shuffle: Shuffle) -> None:
    sampler = sampler_of(40_000, 4000, shuffle=shuffle)
    ahead = np.concatenate([rows for epoch in range(3) for rows in batches(sampler, epoch)])
    order = sampler.row_order()  # Asked from one epoch to the next, it builds in a thread.
    found = []
    for step in range(3 * sampler.steps_per_epoch):
        rows = np.empty(sampler.num_samples(step), np.int64)
        order.rows_inplace(step, 0, len(rows), rows)
        found.append(rows)
    assert np.array_equal(np.concatenate(found), ahead)


@settings(max_examples=50, deadline=None)
@given(sampler=samplers())
def test_workers_and_steps_need_no_more_leaves_than_the_most(sampler: BatchSampler) -> None:
    leaves = [sampler.partition(step).num_leaves for step in range(sampler.steps_per_epoch)]
    assert max(leaves) == sampler.most_leaves


@pytest.mark.parametrize(
    ("num_rows", "row_bytes", "shuffle"),
    [
        (1 << 22, 512, "rows"),
        ((1 << 22) + 1, 4, "windows"),
        (1 << 21, 1024, "rows"),
        (1 << 21, 1025, "windows"),
    ],
)
def test_auto_shuffles_rows_up_to_fixed_sizes(num_rows: int, row_bytes: int, shuffle: str) -> None:
    blocking = Blocking.of(64, lanes=16, lane_rows=None, block_rows=256)
    sampler = BatchSampler.of(num_rows, 64, blocking=blocking, row_bytes=row_bytes)
    assert sampler.describe()["shuffle"] == shuffle


def test_batch_larger_than_the_rows_means_all() -> None:
    sampler = sampler_of(10, 11)
    assert (sampler.batch_rows, sampler.steps_per_epoch, sampler.num_samples(0)) == (10, 1, 10)


# From here on: a mini-batch is a random sample. Seeds are fixed; a sampler whose chance is right
# would fail each of these tests for one choice of seeds in a million.


@pytest.mark.parametrize("batch", [1, 10, 50, 63, 64])
def test_mini_batches_of_two_epochs_share_rows_as_often_as_chance_says(batch: int) -> None:
    # Row and step are others in each trial, so that trials are independent.
    num_rows, trials, shared = 1000, 2000, 0
    for seed in range(trials):
        sampler = sampler_of(num_rows, batch, seed=seed)
        order, rows = sampler.row_order(), np.empty((2, batch), np.int64)
        step = seed % (num_rows // batch)
        for epoch in range(2):
            at = epoch * sampler.steps_per_epoch + step
            order.rows_inplace(at, 0, batch, rows[epoch])
        shared += int(rows[0, 0] in rows[1])
    assert is_as_chance(np.array(shared), trials, batch / num_rows)


@pytest.mark.parametrize(("num_rows", "batch"), [(4, 2), (40, 10), (1000, 50)])
def test_every_two_rows_meet_as_often_as_chance_says(num_rows: int, batch: int) -> None:
    trials = 400
    counts = sum(meetings(sampler_of(num_rows, batch, seed=seed)) for seed in range(trials))
    pairs = np.asarray(counts)[np.triu_indices(num_rows, 1)]
    assert is_as_chance(pairs, trials, (batch - 1) / (num_rows - 1))


def test_every_two_rows_meet_as_often_through_the_epochs_of_one_run() -> None:
    sampler, epochs = sampler_of(40, 10), 2000
    counts = sum(meetings(sampler, epoch) for epoch in range(epochs))
    assert is_as_chance(np.asarray(counts)[np.triu_indices(40, 1)], epochs, 9 / 39)


@pytest.mark.parametrize(("num_rows", "batch"), [(4, 2), (40, 10), (100, 100)])
def test_every_row_is_at_every_place_as_often_as_chance_says(num_rows: int, batch: int) -> None:
    trials, counts = 1000, np.zeros((num_rows, num_rows), np.int64)
    for seed in range(trials):
        order = np.concatenate(list(batches(sampler_of(num_rows, batch, seed=seed))))
        counts[np.arange(num_rows), order] += 1
    assert is_as_chance(counts, trials, 1 / num_rows)


def test_rows_taken_one_by_one_do_not_keep_their_place_among_the_lanes() -> None:
    num_rows, lanes, trials, kept = 120, 16, 1500, 0
    for seed in range(trials):
        sampler = sampler_of(num_rows, 1, seed=seed)
        first, second = (np.concatenate(list(batches(sampler, epoch))) for epoch in range(2))
        at = seed % num_rows
        kept += int(np.flatnonzero(second == first[at])[0] % lanes == at % lanes)
    places = np.bincount(np.arange(num_rows) % lanes)
    assert is_as_chance(np.array(kept), trials, float((places**2).sum()) / num_rows**2)


def test_a_few_rows_give_many_mini_batches() -> None:
    sampler = sampler_of(40, 10)
    found = {tuple(sorted(rows)) for epoch in range(40) for rows in batches(sampler, epoch)}
    assert len(found) == 160
