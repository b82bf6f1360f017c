"""What tutorials write with variables: powers, functions of numpy, choices, equality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff.check import assert_gradient
from distsgd.autodiff.operators import FUNCTIONS
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError

MATRIX = [[0.5, -1.5], [2.0, 0.25]]


def assert_right(function: Callable[[Any], Any], x: Any) -> None:
    """The value is that of the same code on arrays, the gradient that of central differences."""
    plain = np.array(x, np.float64)
    expected = function(plain)
    if isinstance(expected, Variable):
        expected = expected.value
    np.testing.assert_allclose(function(Variable(x)).value, expected, rtol=1e-14)

    def cost_and_gradient(moved: Any) -> tuple[Any, Any]:
        v = Variable(moved)
        with GradientTape() as tape:
            y = function(v)
            cost = (y * np.arange(1.0, y.size + 1.0).reshape(y.shape)).sum()
        return cost, tape.gradient(cost, v)

    assert_gradient(cost_and_gradient, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2**x,
        lambda x: 2.5 ** (x * x),
        lambda x: (x * x + 1) ** x,
        lambda x: x ** [[2.0, 3.0], [0.0, 1.0]],
        lambda x: [2.0, 3.0] ** x if isinstance(x, Variable) else np.array([2.0, 3.0]) ** x,
        lambda x: np.power(2.0, x),
        lambda x: np.power(x, 3),
        lambda x: x**0,
        lambda x: x**-2,
    ],
)
def test_powers_vary_by_base_and_by_exponent(function: Any) -> None:
    assert_right(function, MATRIX)


def test_power_at_0_has_the_slope_that_it_has() -> None:
    x, y = Variable([0.0, 0.0, 0.0]), Variable([0.0, 1.0, 2.0])
    with GradientTape(persistent=True) as tape:
        fixed = x**0
        varied = x**y
    assert tape.gradient(fixed, x).tolist() == [0.0, 0.0, 0.0]
    assert varied.value.tolist() == [1.0, 0.0, 0.0]
    assert tape.gradient(varied, x).tolist() == [0.0, 1.0, 0.0]
    assert tape.gradient(varied, y).tolist() == [0.0, 0.0, 0.0]


CALLS: dict[Any, Callable[[Any], Any]] = {
    np.sum: lambda x: np.sum(x, axis=1, keepdims=True) * x,
    np.mean: lambda x: np.mean(x**2, axis=0),
    np.max: lambda x: np.max(x, axis=1),
    np.amax: np.amax,
    np.min: lambda x: np.min(x, 0),
    np.amin: np.amin,
    np.clip: lambda x: np.clip(x, -1.0, 1.0) * x,
    np.where: lambda x: np.where(x > 0, x * x, 3.0 * x),
    np.reshape: lambda x: np.reshape(x, (4,)) ** 2,
    np.transpose: lambda x: np.transpose(x) * x,
    np.stack: lambda x: np.stack([x, x * x]),
    np.concatenate: lambda x: np.concatenate([x, x * x, [[1.0, 2.0]]]),
    np.dot: lambda x: np.dot(x, x),
    np.outer: lambda x: np.outer(x, x),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_function_of_numpy_that_is_no_ufunc_is_on_the_tape(function: Any) -> None:
    assert_right(CALLS[function], MATRIX)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.concatenate([x, 2.0 * x], axis=1) ** 2,
        lambda x: np.concatenate([x, x * x], axis=-1),
        lambda x: np.dot(x, [1.0, 2.0]),
        lambda x: np.dot(2.0, x),
        lambda x: np.where([True, False], x, x**2),
        lambda x: np.where(x < 0, 0.0, x) * x,
        lambda x: np.minimum(x, 0.3 * x),
        lambda x: x - np.max(x, axis=1, keepdims=True),
        lambda x: x * np.sign(x),
    ],
)
def test_functions_of_numpy_broadcast_and_take_axes(function: Any) -> None:
    assert_right(function, MATRIX)


def test_questions_about_a_variable_are_answered_on_a_tape() -> None:
    x = Variable(MATRIX)
    with GradientTape():
        assert np.argmax(x, axis=1).tolist() == [0, 0]
        assert np.sign(x).tolist() == [[1, -1], [1, 1]]
        assert np.zeros_like(x).tolist() == [[0, 0], [0, 0]]
        assert np.allclose(x, MATRIX)


def test_rows_are_taken_by_a_range_as_by_numpy() -> None:
    assert_right(lambda x: x[range(2), [1, 0]] ** 2, MATRIX)
    assert_right(lambda x: x[range(0)].sum() + x.sum(), MATRIX)


def test_equality_is_of_the_numbers_and_variables_stay_apart_in_sets() -> None:
    x, y = Variable(3.0), Variable(3.0)
    assert x == 3.0
    assert (x != 3.0) is np.False_
    assert x == y
    assert (Variable([1.0, 2.0]) == [1.0, 3.0]).tolist() == [True, False]
    assert (Variable([1.0, 2.0]) != Variable([1.0, 3.0])).tolist() == [False, True]
    assert len({x, y}) == 2
    assert {x: "x", y: "y"}[y] == "y"
    assert x != "three"


def test_variable_of_one_number_gives_plain_numbers() -> None:
    x = Variable([[2.75]])
    assert (int(x), round(x, 1), x.item(), x.size) == (2, 2.8, 2.75, 1)


def test_equal_numbers_give_the_gradient_to_the_first() -> None:
    x, y = Variable([1.0, 2.0]), Variable([1.0, 3.0])
    with GradientTape(persistent=True) as tape:
        small, large = f.minimum(x, y), f.maximum(x, y)
    assert [g.tolist() for g in tape.gradient(small, [x, y])] == [[1, 1], [0, 0]]
    assert [g.tolist() for g in tape.gradient(large, [x, y])] == [[1, 0], [0, 1]]


def test_variable_that_would_become_a_plain_array_on_a_tape_is_refused() -> None:
    x, constant = Variable(2.0), Variable(3.0, watched=False)
    calls: list[Callable[[], Any]] = [
        lambda: np.mean([x * 2.0, x * 3.0]) * x,
        lambda: np.array([x, x * x]),
        lambda: np.asarray(x) * x,
    ]
    for call in calls:
        with GradientTape(), pytest.raises(ModelError, match="plain array while a tape records"):
            call()
        call()  # Without a tape there is nothing to lose.
    with GradientTape() as tape:
        y: Any = np.asarray(constant) * x * Variable(x, watched=False)
        assert x == Variable(2.0)
        assert x < Variable(3.0)
    assert tape.gradient(y, x) == 6.0
