"""Subscripts are numpy's: the same numbers, the same refusals, and a gradient that adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices, integer_array_indices

from distsgd import autodiff as f
from distsgd.autodiff.check import check_gradient
from distsgd.autodiff.ops.subscript import Subscript
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError
from distsgd.lessons.slope import slope_at

SHAPES = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def counted(shape: tuple[int, ...]) -> Variable:
    return Variable(np.arange(float(np.prod(shape, dtype=int))).reshape(shape))


def check_against_numpy(x: Variable, key: Any) -> None:
    """The same numbers, and a gradient that is the sum of what was taken, by a plain loop."""
    with GradientTape() as tape:
        taken = x[key]
        cost = (taken * (1.0 + taken)).sum()
    expected = np.asarray(x.value[key])
    assert taken.value.tolist() == expected.tolist()
    assert taken.shape == expected.shape
    by_x = np.zeros(x.value.size)
    # Each number is its own place.
    for number in expected.ravel().tolist():
        by_x[int(number)] += 1.0 + 2.0 * number
    assert tape.gradient(cost, x).ravel().tolist() == by_x.tolist()


@given(data=st.data(), shape=SHAPES)
def test_basic_subscripts_are_those_of_numpy(data: st.DataObject, shape: tuple[int, ...]) -> None:
    key = data.draw(basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    check_against_numpy(counted(shape), key)


@given(data=st.data(), shape=array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_subscripts_by_arrays_add_where_a_number_is_taken_twice(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    check_against_numpy(counted(shape), data.draw(integer_array_indices(shape)))


@pytest.mark.parametrize(
    "key",
    [
        [0, 2, 0],
        [-1, -1],
        [],
        np.array([[0, 1], [2, 0]], np.uint8),
        [True, False, True],
        np.arange(12).reshape(3, 4) % 3 == 0,
        (slice(None), [True, False, False, True]),
        ([0, 0], slice(None, None, -1)),
        (slice(1, None), None, [1, 1]),
        ([0, 1], [3, 3]),
        True,
        False,
        np.int64(2),
        (np.array(1), ...),
        (),
        None,
    ],
)
def test_subscript_of_a_matrix_is_that_of_numpy(key: Any) -> None:
    check_against_numpy(counted((3, 4)), key)


def test_subscript_is_not_changed_by_what_becomes_of_its_array() -> None:
    places = np.array([0, 1])
    x = Variable([1.0, 2.0, 3.0])
    with GradientTape() as tape:
        y = x[places]
    places[:] = 2
    assert tape.gradient(y, x).tolist() == [1.0, 1.0, 0.0]


def test_tape_recomputes_subscripts() -> None:
    x = Variable([1.0, 2.0, 3.0])
    with GradientTape(persistent=True) as tape:
        y = x[1:] * x[[0, 0]]
    x.value[...] = [2.0, 5.0, 7.0]
    tape.recompute()
    assert y.value.tolist() == [10.0, 14.0]
    assert tape.gradient(y, x).tolist() == [12.0, 2.0, 2.0]


def test_variable_is_unpacked_and_gone_through_along_its_first_axis() -> None:
    x = Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with GradientTape() as tape:
        first, _, last = x
        (a, b), total = first, last[0] * 10.0
        y = a * b + total
    assert tape.gradient(y, x).tolist() == [[2.0, 1.0], [0.0, 0.0], [10.0, 0.0]]
    assert len(x) == 3
    assert [row.value.tolist() for row in x] == x.value.tolist()
    assert [row.value.tolist() for row in reversed(x)] == x.value[::-1].tolist()
    assert list(Variable(np.ones((0, 2)))) == []
    assert 4.0 in x
    assert 7.0 not in x


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: x[3], r"\[3\] of shape \(3, 4\)"),
        (lambda x: x[0, -5], r"\[0, -5\] of shape \(3, 4\)"),
        (lambda x: x[[0, 3]], r"\[\[0, 3\]\] of shape"),
        (lambda x: x[0, 0, 0], "too many"),
        (lambda x: x[..., ...], "single ellipsis"),
        (lambda x: x[::0], "zero"),
        (lambda x: x[[True, False]], r"\[\[True, False\]\] of shape \(3, 4\)"),
        (lambda x: x[[0, 1], [0, 1, 2]], "broadcast"),
        (lambda x: x[np.zeros((3, 5), bool)], r"array of shape \(3, 5\)\] of shape \(3, 4\)"),
        (lambda x: x[1.0], "subscript is 1.0; must be integers"),
        (lambda x: x["a"], "subscript is 'a'"),
        (lambda x: x[0.5:], "subscript is slice"),
        (lambda x: x[[0.0, 1.0]], r"subscript is \[0.0, 1.0\]"),
        (lambda x: x[[[0], [0, 1]]], "must be integers"),
        (lambda x: x[Variable(1.0)], "of a Variable its value"),
        (lambda x: x[Variable([0, 1], dtype=np.int64)], "of a Variable its value"),
        (lambda x: x[0, 0][0], r"\[0\] of shape \(\)"),
        (lambda x: len(x[0, 0]), r"shape \(\) has no length"),
        (lambda x: list(x[0, 0]), r"shape \(\) has no length"),
        (lambda x: x.__setitem__(0, 1.0), r"x.value\[...\] = numbers"),
    ],
)
def test_subscript_refuses_what_is_not_there(call: Callable[[Variable], object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        call(counted((3, 4)))


def test_slope_of_a_function_of_parts() -> None:
    here = slope_at(lambda x: x[0] ** 2 + f.sin(x[1]) * x[0] + x[-1], [2.0, 0.0, 5.0])
    assert here.value == 9.0
    assert here.gradient.tolist() == [4.0, 2.0, 1.0]
    assert here.point.tolist() == [2.0, 0.0, 5.0]

    def rosenbrock(x: Variable) -> Variable:
        a, b = x
        return (1.0 - a) ** 2 + 100.0 * (b - a**2) ** 2

    assert slope_at(rosenbrock, [0.5, 2.0]).gradient.tolist() == [-351.0, 350.0]


def test_check_of_a_function_of_parts() -> None:
    def cost_and_gradient(x: Any) -> tuple[Any, Any]:
        parts = Variable(x)
        with GradientTape() as tape:
            cost = parts[0, 0] * parts[1].sum() + (parts[[0, 0]] ** 2).sum()
        return cost, tape.gradient(cost, parts)

    assert check_gradient(cost_and_gradient, [[1.0, 2.0], [3.0, 4.0]]).passed


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ((slice(None), 0), True),
        ((slice(0, None), 0), True),
        ((..., 0), True),
        ((slice(None), [0, 0]), True),
        ((slice(None), None, slice(0, 1)), True),
        ((), True),
        (0, False),
        (slice(0, 2), False),
        (slice(None, None, -1), False),
        (slice(1, None), False),
        ([0, 1], False),
        ([True, True], False),
        ((None, slice(None)), False),
        ((..., 0, 0, 0), False),
        ((slice(None), 0, [0, 1]), True),
        ((slice(None), [0, 1], slice(None)), True),
        ((slice(None), None, [0, 1]), True),
        ((slice(None), [0, 1], None, [0, 1]), False),
    ],
)
def test_samples_stay_apart_where_the_first_axis_is_taken_whole(key: Any, expected: bool) -> None:  # noqa: FBT001 -- parametrised.
    gate = Subscript.of(key)
    assert gate.samples_stay_apart(((2, 3, 4),), (True,)) is expected
