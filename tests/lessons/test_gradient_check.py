"""The gradient checker: central differences with h = 1e-4, relative difference at most 1e-5."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.autodiff import assert_gradient, check_gradient
from distsgd.errors import ModelError

Floats = NDArray[np.float64]
POINTS = [
    np.array(123.456),
    np.random.default_rng(0).standard_normal(3),
    np.random.default_rng(1).standard_normal((4, 5)),
]


def square(x: Floats) -> tuple[float, Floats]:
    return float((x**2).sum()), 2 * x


@pytest.mark.parametrize("point", POINTS)
def test_gradient_of_a_square_passes(point: Floats) -> None:
    found = check_gradient(square, point)
    assert found.passed
    assert found.relative_difference <= 1e-5
    assert_gradient(square, point)


@pytest.mark.parametrize("point", POINTS)
def test_wrong_gradient_fails(point: Floats) -> None:
    found = check_gradient(lambda x: (float((x**2).sum()), 2 * x + 0.01 * abs(x) + 0.01), point)
    assert not found.passed
    assert found.index == (0,) * point.ndim
    assert found.relative_difference > 1e-5


def test_first_bad_index_is_reported_with_both_values() -> None:
    def wrong_from_the_second_row(x: Floats) -> tuple[float, Floats]:
        cost, gradient = square(x)
        gradient[1, 2:] += 1.0
        return cost, gradient

    x = np.arange(20.0).reshape(4, 5)
    found = check_gradient(wrong_from_the_second_row, x)
    assert found.index == (1, 2)
    assert found.numerical == pytest.approx(14.0, abs=1e-6)
    assert found.analytical == 15.0
    assert found.relative_difference == pytest.approx(1 / 15, rel=1e-6)
    with pytest.raises(ModelError, match=r"index \(1, 2\) is 15\.0, central differences say 14\.0"):
        assert_gradient(wrong_from_the_second_row, x)


def test_chance_is_the_same_in_every_call() -> None:
    generator = np.random.default_rng(7)

    def noisy(x: Floats) -> tuple[float, Floats]:
        noise = generator.standard_normal(x.shape)
        return float((noise * x**2).sum()), 2 * noise * x

    assert not check_gradient(noisy, POINTS[1]).passed
    assert check_gradient(noisy, POINTS[1], generator=generator).passed


def test_whole_numbers_are_checked_in_float64_and_left_alone() -> None:
    x = np.array([1, 2, 3])
    assert_gradient(square, x)
    assert x.tolist() == [1, 2, 3]
