from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.optim.frozen import Frozen, find_frozen
from distsgd.optim.rules import RULES

SHAPES = {"layers.0.weight": (2, 3), "layers.0.bias": (3,), "layers.1.weight": (3, 1)}


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("layers.0.weight", range(6)),
        ("layers.0.weight[1]", [3, 4, 5]),
        ("layers.0.weight[1,2]", [5]),
        ("layers.0.weight[0, 1]", [1]),
        ("layers.0.bias[2]", [8]),
        ("layers.1.weight[2]", [11]),
    ],
)
def test_name_means_its_places(name: str, places: list[int]) -> None:
    found, problems = find_frozen([name], SHAPES)
    assert found.tolist() == list(places)
    assert not problems


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.weight[2]",
        "layers.0.weight[0,3]",
        "layers.0.bias[0,0]",
        "layers.0.bias[-1]",
        "layers.0.bias[]",
        "weight",
        "layers.0.weight[1",
        "[1]",
    ],
)
def test_name_of_nothing_is_said_with_its_way_out(name: str) -> None:
    found, problems = find_frozen([name, "layers.0.bias"], SHAPES)
    assert found.tolist() == [6, 7, 8]
    (problem,) = problems
    assert f'"{name}"' in problem
    assert "edit [optimizer] frozen" in problem


@given(st.sets(st.integers(0, 19)), st.sampled_from(sorted(RULES)))
def test_frozen_places_keep_their_bits_and_the_others_move_as_ever(
    places: set[int], rule_name: str
) -> None:
    rule = RULES[rule_name](weight_decay=0.1, decoupled_weight_decay=0.2)
    frozen = Frozen(np.array(sorted(places), np.int64))
    start = np.linspace(-1.0, 1.0, 20)
    weights, free = start.copy(), start.copy()
    state, free_state = rule.init(weights), rule.init(free)
    for step in range(3):
        grad = np.cos(np.arange(20.0) + step)
        mean = grad.copy()
        kept = frozen.take_out_inplace(weights, mean)
        rule.update_inplace(weights, mean, state=state, learning_rate=0.1, num_updates=step)
        frozen.put_back_inplace(weights, kept)
        rule.update_inplace(free, grad, state=free_state, learning_rate=0.1, num_updates=step)
    is_frozen = np.isin(np.arange(20), sorted(places))
    assert weights[is_frozen].tobytes() == start[is_frozen].tobytes()
    assert weights[~is_frozen].tobytes() == free[~is_frozen].tobytes()
    assert bool(frozen) == bool(places)
