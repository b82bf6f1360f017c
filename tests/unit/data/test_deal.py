from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.deal import (
    WINDOW_BYTES,
    Block,
    Deal,
    RowOrder,
    cut,
    largest_divisor,
    rows_in_window,
)

DEALS = st.builds(
    Deal.of,
    st.integers(1, 400),
    st.one_of(st.integers(1, 40), st.integers(1, 500)),
    lanes=st.sampled_from([1, 2, 3, 4, 7, 12, 16]),
    lane_rows=st.one_of(st.none(), st.integers(1, 40)),
    block_rows=st.one_of(st.integers(1, 20), st.just(256)),
)


def epoch_of(deal: Deal, epoch: int = 0) -> list[list[Block]]:
    first = epoch * deal.steps_per_epoch
    return [deal.blocks(first + step) for step in range(deal.steps_per_epoch)]


def rows_of(order: RowOrder, epoch: int, block: Block) -> list[int]:
    rows_N = np.full(block.last - block.first, -1)
    order.rows_inplace(epoch, block, rows_N)
    return [int(row) for row in rows_N]


@settings(max_examples=300, deadline=None)
@given(deal=DEALS, epoch=st.integers(0, 3))
def test_epoch_uses_every_position_of_every_lane_once(deal: Deal, epoch: int) -> None:
    positions = Counter(
        (block.lane, position)
        for blocks in epoch_of(deal, epoch)
        for block in blocks
        for position in range(block.first, block.last)
    )
    lanes = range(deal.lanes)
    assert positions == Counter((lane, i) for lane in lanes for i in range(deal.lane_size(lane)))


@settings(max_examples=300, deadline=None)
@given(deal=DEALS)
def test_every_mini_batch_is_full_but_the_last(deal: Deal) -> None:
    sizes = [sum(b.last - b.first for b in blocks) for blocks in epoch_of(deal)]
    assert sizes == [deal.num_samples(step) for step in range(deal.steps_per_epoch)]
    assert set(sizes[:-1]) <= {deal.batch_rows}
    assert 1 <= sizes[-1] <= deal.batch_rows
    assert sum(sizes) == deal.num_rows


@settings(max_examples=300, deadline=None)
@given(deal=DEALS)
def test_blocks_stand_in_lane_order_and_are_not_too_long(deal: Deal) -> None:
    for blocks in epoch_of(deal):
        keys = [(block.lane, block.piece) for block in blocks]
        assert keys == sorted(set(keys))
        assert all(1 <= block.last - block.first <= deal.block_rows for block in blocks)
        for before, block in pairwise(blocks):
            is_next = before.lane == block.lane
            assert block.piece == (before.piece + 1 if is_next else 0)
            assert not is_next or block.first == before.last
        most = max(Counter(block.lane for block in blocks).values())
        assert most <= deal.most_blocks_per_lane


@settings(max_examples=100, deadline=None)
@given(deal=DEALS, epoch=st.integers(1, 1000), step=st.integers(0, 1000))
def test_every_epoch_is_dealt_alike(deal: Deal, epoch: int, step: int) -> None:
    step %= deal.steps_per_epoch
    assert deal.blocks(epoch * deal.steps_per_epoch + step) == deal.blocks(step)


@settings(max_examples=100, deadline=None)
@given(deal=DEALS)
def test_lanes_are_neighbours_of_about_equal_size(deal: Deal) -> None:
    starts = deal.lane_starts()
    sizes = [deal.lane_size(lane) for lane in range(deal.lanes)]
    assert (starts[0], starts[-1]) == (0, deal.num_rows)
    assert [b - a for a, b in pairwise(starts)] == sizes == sorted(sizes)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("lane", range(2))
def test_lanes_take_turns_in_strided_groups(lane: int) -> None:
    deal = Deal.of(160, 8, lanes=4, lane_rows=4)
    assert (deal.used_lanes, deal.groups, deal.rounds) == (2, 2, 10)
    assert [[b.lane for b in deal.blocks(t)] for t in (lane, lane + 2)] == [[lane, lane + 2]] * 2


def test_deal_of_twenty_rows_is_the_worked_example() -> None:
    deal = Deal.of(20, 6, lanes=4, lane_rows=3)
    assert (deal.used_lanes, deal.groups, deal.rounds, deal.steps_per_epoch) == (2, 2, 1, 4)
    assert [[(b.lane, b.first, b.last) for b in blocks] for blocks in epoch_of(deal)] == [
        [(0, 0, 3), (2, 0, 3)],
        [(1, 0, 3), (3, 0, 3)],
        [(0, 3, 5), (1, 3, 5), (2, 3, 5)],
        [(3, 3, 5)],
    ]


@pytest.mark.parametrize(
    ("batch", "lane_rows"), [(1, 32), (128, 32), (256, 64), (1024, 256), (9999, 256)]
)
def test_lane_rows_follow_the_batch_unless_set(batch: int, lane_rows: int) -> None:
    assert Deal.of(60_000, batch).lane_rows == lane_rows


def test_batch_larger_than_the_rows_means_all() -> None:
    deal = Deal.of(10, 11)
    assert (deal.batch_rows, deal.steps_per_epoch) == (10, 1)
    assert sum(b.last - b.first for b in deal.blocks(0)) == 10


def test_fewer_rows_than_lanes_are_all_used() -> None:
    for batch in (1, 2, 3, 4):
        deal = Deal.of(3, batch, lanes=16)
        used = [(b.lane, b.first) for blocks in epoch_of(deal) for b in blocks]
        assert sorted(used) == [(13, 0), (14, 0), (15, 0)]


@given(size=st.integers(0, 500), first=st.integers(0, 9), block_rows=st.integers(1, 100))
def test_cut_is_in_the_fewest_pieces_of_about_equal_size(
    size: int, first: int, block_rows: int
) -> None:
    blocks = cut(2, first, first + size, block_rows)
    sizes = [block.last - block.first for block in blocks]
    assert len(blocks) == -(-size // block_rows)
    assert sum(sizes) == size
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert [block.piece for block in blocks] == list(range(len(blocks)))


@given(number=st.integers(1, 200), limit=st.integers(0, 300))
def test_largest_divisor_divides_and_no_larger_one_does(number: int, limit: int) -> None:
    found = largest_divisor(number, limit)
    assert number % found == 0
    assert found <= max(1, limit)
    assert not any(number % d == 0 for d in range(found + 1, min(number, limit) + 1))


@given(num_rows=st.integers(0, 3000))
def test_evaluation_takes_every_row_once_in_order(num_rows: int) -> None:
    blocks = Deal.of(100, 10).evaluation_blocks(num_rows)
    rows = [row for block in blocks for row in range(block.first, block.last)]
    assert rows == list(range(num_rows))


@pytest.mark.parametrize(
    ("row_bytes", "rows"),
    [
        (WINDOW_BYTES // 4, 4),
        (WINDOW_BYTES // 5, 4),
        (WINDOW_BYTES // 3, 2),
        (WINDOW_BYTES * 3, 1),
        (1, 1 << 24),
    ],
)
def test_window_is_the_largest_power_of_two_of_rows_that_fits(row_bytes: int, rows: int) -> None:
    assert rows_in_window(row_bytes) == rows


@settings(max_examples=150, deadline=None)
@given(
    deal=DEALS,
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 3),
    window=st.sampled_from([1, 2, 4, 8, 16, 1024]),
)
def test_epoch_visits_every_row_once_in_its_lane(
    deal: Deal, seed: int, epoch: int, window: int
) -> None:
    order, starts = RowOrder(deal, seed=seed, row_bytes=WINDOW_BYTES // window), deal.lane_starts()
    seen: list[int] = []
    for blocks in epoch_of(deal, epoch):
        for block in blocks:
            rows = rows_of(order, epoch, block)
            assert all(starts[block.lane] <= row < starts[block.lane + 1] for row in rows)
            seen += rows
    assert sorted(seen) == list(range(deal.num_rows))


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 60), window=st.sampled_from([1, 2, 4, 16]), data=st.data())
def test_rows_of_a_block_depend_on_nothing_read_before(
    size: int, window: int, data: st.DataObject
) -> None:
    deal = Deal.of(2 * size, 4, lanes=2)
    used = RowOrder(deal, seed=1, row_bytes=WINDOW_BYTES // window)
    for _ in range(8):
        lane, epoch = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 2))
        first = data.draw(st.integers(0, size - 1))
        block = Block(lane, 0, first, data.draw(st.integers(first + 1, size)))
        fresh = RowOrder(deal, seed=1, row_bytes=WINDOW_BYTES // window)
        assert rows_of(used, epoch, block) == rows_of(fresh, epoch, block)


@pytest.mark.parametrize("size", [32, 30, 33, 8, 5])
def test_rows_are_read_window_by_window(size: int) -> None:
    deal = Deal.of(size, 4, lanes=1)
    order = RowOrder(deal, seed=0, row_bytes=WINDOW_BYTES // 8)
    visited = []
    for epoch in range(8):
        windows = [row // 8 for row in rows_of(order, epoch, Block(0, 0, 0, size))]
        changes = [windows[0], *(b for a, b in pairwise(windows) if a != b)]
        assert sorted(changes) == list(range(-(-size // 8)))
        visited.append(tuple(changes))
    assert len(set(visited)) > 1 or size <= 8


def test_order_differs_between_epochs_lanes_and_seeds() -> None:
    deal = Deal.of(200, 4, lanes=2)
    orders = {
        tuple(row - 100 * lane for row in rows_of(order, epoch, Block(lane, 0, 0, 100)))
        for order in (RowOrder(deal, seed=seed, row_bytes=8) for seed in (0, 1))
        for epoch in range(3)
        for lane in range(2)
    }
    assert len(orders) == 2 * 3 * 2
