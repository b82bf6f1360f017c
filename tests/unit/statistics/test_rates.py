from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.statistics import halve, is_at_edge, log_grid, refine

COUNT = st.integers(1, 20)


@given(seed=st.integers(0, 2**63), count=COUNT)
def test_grid_has_one_rate_in_each_equal_part_of_the_log(seed: int, count: int) -> None:
    rates = log_grid(1e-4, 10.0, count, seed=seed)
    parts = np.log(np.array(rates) / 1e-4) / math.log(1e5) * count
    assert np.floor(parts * (1 + 1e-12)).tolist() == list(range(count))


def test_grid_is_this_for_ever() -> None:
    assert log_grid(0.001, 1.0, 2, seed=7) == log_grid(0.001, 1.0, 2, seed=7)
    assert [f"{rate:.6g}" for rate in log_grid(0.001, 1.0, 2, seed=7)] == [
        "0.0037023",
        "0.831434",
    ]


def test_grids_of_other_seeds_share_no_rate() -> None:
    rates = [rate for seed in range(50) for rate in log_grid(0.01, 1.0, 5, seed=seed)]
    assert len(set(rates)) == len(rates)


def test_halve_keeps_the_lower_losses_and_the_middle_one() -> None:
    assert halve({0.1: 3.0, 0.2: 1.0, 0.4: 2.0}) == [0.2, 0.4]
    assert halve({0.1: 3.0, 0.2: 1.0, 0.4: 2.0, 0.8: 0.5}) == [0.2, 0.8]
    assert halve({0.1: 3.0}) == [0.1]


def test_halve_never_keeps_what_diverged() -> None:
    assert halve({0.1: math.nan, 0.2: math.inf, 0.4: 5.0, 0.8: math.nan}) == [0.4]
    assert halve({0.1: math.nan}) == []


def test_halve_of_equals_keeps_the_lower_rates() -> None:
    assert halve({0.8: 1.0, 0.1: 1.0, 0.4: 1.0, 0.2: 1.0}) == [0.1, 0.2]


@given(count=COUNT, is_low=st.booleans())
def test_refining_at_the_edge_continues_beyond_it(count: int, is_low: bool) -> None:  # noqa: FBT001
    rates = [0.4, 0.1, 0.2]
    best = min(rates) if is_low else max(rates)
    more = refine(rates, best, count=count)
    beyond = (
        [best / 2**i for i in range(count, 0, -1)]
        if is_low
        else [best * 2**i for i in range(1, count + 1)]
    )
    assert more == pytest.approx(beyond)


@given(count=COUNT, best=st.sampled_from([0.01, 0.03, 0.1, 1.0]))
def test_refining_within_stays_between_the_neighbours_of_the_best(count: int, best: float) -> None:
    rates = [0.01, 0.03, 0.1, 1.0]
    more = refine(rates, best, count=count, may_widen=False)
    at = rates.index(best)
    low, high = rates[max(at - 1, 0)], rates[min(at + 1, 3)]
    assert more == sorted(set(more))
    assert len(more) == count
    assert all(low < rate < high and rate not in rates for rate in more)


def test_refining_puts_the_greater_half_below_the_best() -> None:
    more = refine([1.0, 8.0, 27.0], 8.0, count=3)
    assert more == pytest.approx([2.0, 4.0, 8.0 * (27 / 8) ** 0.5])


def test_the_lowest_and_the_highest_are_at_the_edge() -> None:
    assert [is_at_edge([0.4, 0.1, 0.2], rate) for rate in (0.1, 0.2, 0.4)] == [True, False, True]
