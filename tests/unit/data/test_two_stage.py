from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distsgd.data.deal import Deal
from distsgd.data.two_stage import TwoStageDeal

ROW_BYTES = 64


@st.composite
def deals(draw: st.DrawFn) -> TwoStageDeal:
    return TwoStageDeal.of(
        draw(st.integers(1, 400)),
        draw(st.integers(1, 80)),
        pool=draw(st.integers(1, 120)),
        lanes=draw(st.integers(1, 16)),
        lane_rows=draw(st.none() | st.integers(1, 40)),
        block_rows=draw(st.integers(1, 40)),
    )


def rows_of(deal: TwoStageDeal, step: int, *, seed: int = 0) -> list[int]:
    """The rows of a step, by a row order that has seen nothing before."""
    order = deal.row_order(seed=seed, row_bytes=ROW_BYTES)
    rows: list[int] = []
    for block in deal.blocks(step):
        out = np.empty(block.last - block.first, np.int64)
        order.rows_inplace(deal.order_key(step), block, out)
        rows += out.tolist()
    return rows


@given(deals(), st.integers(0, 2))
def test_every_row_is_used_once_an_epoch(deal: TwoStageDeal, epoch: int) -> None:
    steps = range(epoch * deal.steps_per_epoch, (epoch + 1) * deal.steps_per_epoch)
    used = [row for step in steps for row in rows_of(deal, step)]
    assert sorted(used) == list(range(deal.num_rows))


@given(deals(), st.integers(0, 1000))
def test_blocks_are_those_of_a_deal_in_lane_order(deal: TwoStageDeal, step: int) -> None:
    blocks = deal.blocks(step)
    assert sum(block.last - block.first for block in blocks) == deal.num_samples(step) > 0
    keys = [(block.lane, block.piece) for block in blocks]
    assert keys == sorted(set(keys))
    assert all(0 < block.last - block.first <= deal.block_rows for block in blocks)
    assert all(0 <= block.lane < deal.lanes for block in blocks)
    assert max(block.piece for block in blocks) < deal.most_blocks_per_lane


@given(deals(), st.integers(0, 300), st.integers(0, 5))
def test_rows_of_a_step_do_not_depend_on_what_was_read_before(
    deal: TwoStageDeal, step: int, before: int
) -> None:
    order = deal.row_order(seed=0, row_bytes=ROW_BYTES)
    found: list[int] = []
    for at in [*range(before), step + 1, step]:
        found = []
        for block in deal.blocks(at):
            out = np.empty(block.last - block.first, np.int64)
            order.rows_inplace(deal.order_key(at), block, out)
            found += out.tolist()
    assert found == rows_of(deal, step)


def test_a_pool_is_what_one_stage_dealing_makes_a_mini_batch_of() -> None:
    deal, one = TwoStageDeal.of(230, 10, pool=40), Deal.of(230, 40)
    order = one.row_order(seed=3, row_bytes=ROW_BYTES)
    for pool in range(2 * one.steps_per_epoch):
        rows: list[int] = []
        for block in one.blocks(pool):
            out = np.empty(block.last - block.first, np.int64)
            order.rows_inplace(one.order_key(pool), block, out)
            rows += out.tolist()
        steps = [s for s in range(2 * deal.steps_per_epoch) if deal.order_key(s) == pool]
        drawn = [row for step in steps for row in rows_of(deal, step, seed=3)]
        assert sorted(drawn) == sorted(rows)
        assert drawn != rows


def test_seed_and_epoch_change_the_order() -> None:
    deal = TwoStageDeal.of(100, 5, pool=50)
    first = rows_of(deal, 0)
    assert first != rows_of(deal, deal.steps_per_epoch)
    assert first != rows_of(deal, 0, seed=1)


def test_whole_pool_is_one_step() -> None:
    deal = TwoStageDeal.of(1000, 1000, pool=50)
    assert (deal.batch_rows, deal.steps_per_epoch) == (50, 20)
