from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.blocks import Blocking, partition_of

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
