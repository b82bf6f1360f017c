"""The gradient as a direction and a steepness."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd.autodiff import Variable
from distsgd.errors import ModelError
from distsgd.lessons import slope_at


def bowl(x: Variable) -> Variable:
    return (x**2).sum()


def test_slope_of_a_bowl_is_the_printed_one() -> None:
    here = slope_at(bowl, [-2.0, 4.0])
    assert here.value == 20.0
    assert here.gradient.tolist() == [-4, 8]
    assert here.step.tolist() == [4, -8]
    assert here.steepness == pytest.approx(8.944, abs=5e-4)


def test_no_direction_rises_faster_than_the_gradient() -> None:
    here, step = slope_at(bowl, [-2.0, 4.0]), 1e-6
    assert np.linalg.norm(here.direction) == pytest.approx(1.0)
    rises = []
    for angle in np.linspace(0, 2 * np.pi, 360, endpoint=False):
        direction = np.array([np.cos(angle), np.sin(angle)])
        moved = np.array([-2.0, 4.0]) + step * direction
        rises.append((float((moved**2).sum()) - here.value) / step)
    along = ((np.array([-2.0, 4.0]) + step * here.direction) ** 2).sum()
    assert (along - here.value) / step == pytest.approx(here.steepness, rel=1e-6)
    assert max(rises) <= here.steepness + 1e-5


def test_slope_where_it_is_flat_has_no_direction() -> None:
    here = slope_at(bowl, [0.0, 0.0])
    assert here.steepness == 0.0
    assert here.direction.tolist() == [0, 0]
    constant = slope_at(lambda x: Variable(x.value.size), [1.0, 2.0])
    assert constant.gradient.tolist() == [0, 0]


def test_slope_wants_one_number() -> None:
    with pytest.raises(ModelError, match="one number"):
        slope_at(lambda x: x * 2.0, [1.0, 2.0])
    with pytest.raises(ModelError, match=r"the function is 3\.0; must be callable"):
        slope_at(3.0, 1.0)  # type: ignore[arg-type] # the mistake
