"""Scales hold what they were made for, and their ticks can be read."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.experiments.report.scale import Scale, apart, linear_scale, log_scale

VALUES = st.lists(st.floats(1e-9, 1e12), min_size=0, max_size=5)


@given(VALUES, st.sampled_from([log_scale, linear_scale]))
def test_scale_holds_its_values_and_has_ticks(
    values: list[float], make: Callable[[list[float]], Scale]
) -> None:
    scale = make(values)
    assert scale.low < scale.high
    assert all(scale.holds(value) for value in values)
    places = [scale.at(10.0, 20.0).place(value) for value in values]
    assert all(10.0 - 1e-6 <= place <= 20.0 + 1e-6 for place in places)
    ticks = [value for value, _ in scale.ticks(str)]
    assert 2 <= len(ticks) <= 14
    assert all(before < after for before, after in pairwise(ticks))
    assert all(scale.low * (1 - 1e-6) <= tick <= scale.high * (1 + 1e-6) for tick in ticks)


def test_scale_leaves_aside_what_no_axis_can_show() -> None:
    assert log_scale([0.0, -1.0, math.inf, math.nan]) == log_scale([])
    assert linear_scale([math.inf, math.nan, 2.0]) == linear_scale([2.0])


@pytest.mark.parametrize("least", [0.0, 1.0, 3.0, 100.0])
def test_ticks_keep_their_distance_and_the_ends_stay(least: float) -> None:
    ticks = [(float(value), str(value)) for value in (1, 2, 3, 5, 9, 10)]
    kept = apart(ticks, float, least)
    assert kept[0] == ticks[0]
    assert kept[-1] == ticks[-1]
    between = [after[0] - before[0] for before, after in pairwise(kept)]
    assert len(kept) == 2 or min(between) >= least
