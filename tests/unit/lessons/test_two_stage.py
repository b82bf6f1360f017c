from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.sampler import BatchSampler, Blocking
from distsgd.lessons.two_stage import TwoStageSampler
from tests.surprise import is_as_chance
from tests.unit.data.test_sampler import batches, meetings


def sampler_of(
    num_rows: int, batch: int, *, pool: int, seed: int = 0, windows: bool = False
) -> TwoStageSampler:
    blocking = Blocking.of(batch, lanes=4, lane_rows=8, block_rows=16)
    pools = BatchSampler.of(
        num_rows, pool, blocking=blocking, seed=seed, shuffle="windows" if windows else "rows"
    )
    return TwoStageSampler(pools, batch, blocking)


@st.composite
def samplers(draw: st.DrawFn) -> TwoStageSampler:
    return sampler_of(
        draw(st.integers(1, 400)),
        draw(st.integers(1, 80)),
        pool=draw(st.integers(1, 120)),
        seed=draw(st.integers(0, 1 << 40)),
        windows=draw(st.booleans()),
    )


@settings(max_examples=200, deadline=None)
@given(samplers(), st.integers(0, 2))
def test_every_row_is_used_once_an_epoch(sampler: TwoStageSampler, epoch: int) -> None:
    rows = np.concatenate(list(batches(sampler, epoch)))
    assert np.array_equal(np.sort(rows), np.arange(sampler.num_rows))


@settings(max_examples=200, deadline=None)
@given(samplers(), st.integers(0, 1000))
def test_blocks_hold_the_places_of_the_step(sampler: TwoStageSampler, step: int) -> None:
    partition = sampler.partition(step)
    assert partition.blocks[-1].last == sampler.num_samples(step) > 0
    assert partition.num_leaves <= sampler.most_leaves


@settings(max_examples=100, deadline=None)
@given(samplers(), st.integers(0, 300), st.integers(0, 5))
def test_rows_of_a_step_do_not_depend_on_what_was_read_before(
    sampler: TwoStageSampler, step: int, before: int
) -> None:
    order, found = sampler.row_order(), np.empty(0, np.int64)
    for at in [*range(before), step + 1, step]:
        found = np.empty(sampler.num_samples(at), np.int64)
        order.rows_inplace(at, 0, len(found), found)
    expected = np.empty(len(found), np.int64)
    sampler.row_order().rows_inplace(step, 0, len(expected), expected)
    assert np.array_equal(found, expected)


def test_a_pool_is_a_mini_batch_of_the_one_stage_sampler_in_another_order() -> None:
    sampler = sampler_of(230, 10, pool=40, seed=3)
    for epoch in range(2):
        pools = list(batches(sampler.pools, epoch))
        drawn = np.concatenate(list(batches(sampler, epoch)))
        for rows, again in zip(pools, np.split(drawn, range(40, 230, 40)), strict=True):
            assert np.array_equal(np.sort(rows), np.sort(again))
            assert not np.array_equal(rows, again)


def test_every_two_rows_meet_as_often_as_in_one_stage() -> None:
    # In a pool with (P - 1) / (N - 1), then in a mini-batch of it with (B - 1) / (P - 1).
    trials = 600
    counts = sum(meetings(sampler_of(40, 5, pool=20, seed=seed)) for seed in range(trials))
    assert is_as_chance(np.asarray(counts)[np.triu_indices(40, 1)], trials, 4 / 39)


def test_every_row_is_at_every_place_as_often_as_chance_says() -> None:
    trials, counts = 1000, np.zeros((40, 40), np.int64)
    for seed in range(trials):
        order = np.concatenate(list(batches(sampler_of(40, 5, pool=20, seed=seed))))
        counts[np.arange(40), order] += 1
    assert is_as_chance(counts, trials, 1 / 40)


def test_whole_pool_is_one_step() -> None:
    sampler = sampler_of(1000, 1000, pool=50)
    assert (sampler.batch_rows, sampler.steps_per_epoch) == (50, 20)
