from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.deal import Block, Deal
from distsgd.parallel.tree import Sums, joins, most_nodes, separators
from tests.oracles import tree_over

DEALS = st.builds(
    Deal.of,
    st.integers(1, 400),
    st.integers(1, 400),
    lanes=st.sampled_from([1, 2, 3, 5, 8, 16]),
    lane_rows=st.integers(1, 40),
    block_rows=st.integers(1, 20),
)


def name_of(block: Block) -> str:
    return f"{block.lane}.{block.piece}"


def whole_tree(blocks: list[Block]) -> str:
    return tree_over(blocks, name_of, "({}+{})".format)


def run_stack(nodes: list[str], edges: tuple[int, ...]) -> list[str]:
    """What a stack leaves of `nodes`."""
    stack: list[str] = []
    schedule = joins(edges)
    for node, pops in zip(nodes, schedule.pops, strict=True):
        stack.append(node)
        assert len(stack) <= schedule.depth
        for _ in range(pops):
            right = stack.pop()
            stack[-1] = f"({stack[-1]}+{right})"
    assert len(stack) == schedule.num_left
    return stack


def tree_of_cuts(blocks: list[Block], cuts: list[int]) -> str:
    """The tree as workers that were cut at `cuts`, and the server after them, build it."""
    edges = separators(blocks)
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
    keys=st.sets(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=24),
    data=st.data(),
)
def test_any_cut_gives_the_tree_of_one_process(
    keys: set[tuple[int, int]], data: st.DataObject
) -> None:
    blocks = [Block(lane, piece, 0, 1) for lane, piece in sorted(keys)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(blocks)), max_size=7)))
    assert tree_of_cuts(blocks, cuts) == tree_of_cuts(blocks, []) == whole_tree(blocks)


@settings(max_examples=100, deadline=None)
@given(deal=DEALS, data=st.data())
def test_dealt_blocks_are_summed_alike_by_any_number_of_workers(
    deal: Deal, data: st.DataObject
) -> None:
    blocks = deal.blocks(data.draw(st.integers(0, deal.steps_per_epoch - 1)))
    for count in (1, 2, 3, 5, 7, 40):
        cuts = [len(blocks) * i // count for i in range(1, count)]
        assert tree_of_cuts(blocks, cuts) == whole_tree(blocks)


@settings(max_examples=40, deadline=None)
@given(deal=DEALS, data=st.data())
def test_no_stack_of_a_deal_outgrows_its_slots(deal: Deal, data: st.DataObject) -> None:
    most = most_nodes(deal.lanes, deal.most_blocks_per_lane)
    edges = separators(deal.blocks(data.draw(st.integers(0, deal.steps_per_epoch - 1))))
    for first in range(len(edges) - 1):
        for last in range(first + 1, len(edges)):
            schedule = joins(edges[first : last + 1])
            assert max(schedule.depth, schedule.num_left) <= most


@pytest.mark.parametrize(
    ("lanes", "tree"),
    [
        ([0], "0.0"),
        ([0, 1, 2], "((0.0+1.0)+2.0)"),
        ([1, 2, 3], "(1.0+(2.0+3.0))"),
        ([0, 3, 8, 12], "((0.0+3.0)+(8.0+12.0))"),
    ],
)
def test_missing_sibling_passes_through(lanes: list[int], tree: str) -> None:
    assert tree_of_cuts([Block(lane, 0, 0, 1) for lane in lanes], []) == tree


def test_pieces_of_a_lane_are_joined_before_lanes() -> None:
    blocks = [Block(0, 0, 0, 1), Block(0, 1, 1, 2), Block(0, 2, 2, 3), Block(1, 0, 0, 1)]
    assert tree_of_cuts(blocks, [2]) == "(((0.0+0.1)+0.2)+1.0)"


def test_sums_add_and_keep_the_largest_norm() -> None:
    left, right = Sums(3, 1.5, 2, 4.0, 3.0), Sums(1, 0.25, 1, 9.0, 9.0)
    assert left.joined(right) == Sums(4, 1.75, 3, 13.0, 9.0)
    assert right.joined(left) == left.joined(right)
