from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.sampler import Block, Blocking, Partition, separators_of
from distsgd.parallel.messages import Sums
from distsgd.parallel.tree import fold, joins, most_nodes
from tests.oracles import tree_over


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    lanes = draw(st.sampled_from([1, 2, 3, 5, 8, 16]))
    rows = draw(st.integers(1, 400))
    blocking = Blocking.of(
        rows,
        lanes=lanes,
        lane_rows=draw(st.integers(1, 40)),
        block_rows=draw(st.integers(1, 20)),
    )
    return blocking.partition(rows)


def name_of(block: Block) -> str:
    return str(block.number)


def blocks_of(numbers: list[int]) -> list[Block]:
    return [Block(number, i, i + 1) for i, number in enumerate(numbers)]


def whole_tree(blocks: Sequence[Block]) -> str:
    return tree_over(blocks, name_of, "({}+{})".format)


def run_stack(nodes: list[str], edges: tuple[int, ...]) -> list[str]:
    """What a stack leaves of `nodes`."""
    schedule = joins(edges)

    def leaf(i: int, height: int) -> str:
        assert height < schedule.depth
        return nodes[i]

    stack = fold(schedule.pops, leaf, lambda left, right, _: f"({left}+{right})")
    assert len(schedule.pops) == len(nodes)
    assert len(stack) == schedule.num_left
    return stack


def tree_of_cuts(blocks: Sequence[Block], cuts: list[int]) -> str:
    """The tree as workers that were cut at `cuts`, and the server after them, build it."""
    edges = separators_of([block.number for block in blocks])
    nodes: list[str] = []
    open_edges: tuple[int, ...] = ()
    for first, last in zip([0, *cuts], [*cuts, len(blocks)], strict=True):
        if first < last:
            nodes += run_stack(
                [name_of(block) for block in blocks[first:last]], edges[first : last + 1]
            )
            open_edges = (*open_edges[:-1], *joins(edges[first : last + 1]).edges)
    (root,) = run_stack(nodes, open_edges)
    return root


@settings(max_examples=300, deadline=None)
@given(
    numbers=st.sets(st.integers(0, 500), min_size=1, max_size=24),
    data=st.data(),
)
def test_any_cut_gives_the_tree_of_one_process(numbers: set[int], data: st.DataObject) -> None:
    blocks = blocks_of(sorted(numbers))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(blocks)), max_size=7)))
    assert tree_of_cuts(blocks, cuts) == tree_of_cuts(blocks, []) == whole_tree(blocks)


@settings(max_examples=100, deadline=None)
@given(partition=partitions())
def test_blocks_of_a_step_are_summed_alike_by_any_number_of_workers(partition: Partition) -> None:
    blocks = partition.blocks
    for count in (1, 2, 3, 5, 7, 40):
        cuts = [len(blocks) * i // count for i in range(1, count)]
        assert tree_of_cuts(blocks, cuts) == whole_tree(blocks)


@settings(max_examples=40, deadline=None)
@given(partition=partitions())
def test_no_stack_of_a_step_outgrows_its_slots(partition: Partition) -> None:
    most, edges = most_nodes(partition.num_leaves), partition.separators
    for first in range(len(edges) - 1):
        for last in range(first + 1, len(edges)):
            schedule = joins(edges[first : last + 1])
            assert max(schedule.depth, schedule.num_left) <= most


@pytest.mark.parametrize(
    ("numbers", "tree"),
    [
        ([0], "0"),
        ([0, 1, 2], "((0+1)+2)"),
        ([1, 2, 3], "(1+(2+3))"),
        ([0, 3, 8, 12], "((0+3)+(8+12))"),
    ],
)
def test_missing_sibling_passes_through(numbers: list[int], tree: str) -> None:
    assert tree_of_cuts(blocks_of(numbers), []) == tree


def test_sums_add_and_keep_the_largest_norm() -> None:
    left, right = Sums(3, 1.5, 2, 4.0, 3.0), Sums(1, 0.25, 1, 9.0, 9.0)
    assert left.joined(right) == Sums(4, 1.75, 3, 13.0, 9.0)
    assert right.joined(left) == left.joined(right)


def test_fold_makes_each_node_at_the_height_at_which_it_is_joined() -> None:
    rooms = [""] * 3

    def leaf(i: int, height: int) -> int:
        rooms[height] = "abcde"[i]
        return height

    def join(left: int, right: int, height: int) -> int:
        assert (left, right) == (height, height + 1)
        rooms[height] = f"({rooms[height]}{rooms[right]})"
        return height

    # A stack in three rooms, as slots are: nothing is moved from one to another but by a join.
    pops = joins(separators_of([0, 1, 2, 3, 4])).pops
    assert fold(pops, leaf, join) == [0]
    assert rooms[0] == "(((ab)(cd))e)"
