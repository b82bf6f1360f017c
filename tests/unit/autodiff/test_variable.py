"""A variable beside arrays, lists and numbers, and under the functions of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distsgd.autodiff.check import assert_gradient
from distsgd.autodiff.operators import GATES
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError


def test_variable_answers_arrays_and_lists_from_both_sides() -> None:
    x = Variable([1.0, 2.0])
    both: Any = np.array([10.0, 20.0])
    eye: Any = np.eye(2)
    assert (both + x).value.tolist() == [11.0, 22.0]
    assert (both - x).value.tolist() == [9.0, 18.0]
    assert ([2, 4] / x).value.tolist() == [2.0, 2.0]
    assert (2 * x).value.tolist() == [2.0, 4.0]
    assert (eye @ Variable([[1.0], [2.0]])).value.tolist() == [[1.0], [2.0]]
    assert (1 - Variable(np.float32(0.5))).dtype == np.float32


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2.0), np.float32(2.0), np.int64(2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_beside_a_variable_keep_its_dtype(scalar: Any, dtype: type) -> None:
    x = Variable(np.array([1.0, 4.0], dtype))
    for y in (scalar * x, x * scalar, scalar - x, scalar / x, x**scalar):
        assert isinstance(y, Variable)
        assert y.dtype == dtype
    assert (scalar - x).value.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("ufunc", GATES, ids=lambda ufunc: ufunc.__name__)
def test_function_of_numpy_is_on_the_tape(ufunc: np.ufunc) -> None:
    x, other = np.array([[0.5, 1.5], [0.75, 2.0]]), [[1.0, 3.0], [0.5, 0.25]]

    def cost_and_gradient(moved: Any) -> tuple[Any, Any]:
        v = Variable(moved)
        with GradientTape() as tape:
            y: Any = ufunc(v) if ufunc.nin == 1 else ufunc(v, other)
            cost = (y * [[1.0, 2.0], [3.0, 4.0]]).sum()
        expected = ufunc(moved) if ufunc.nin == 1 else ufunc(moved, other)
        np.testing.assert_allclose(y.value, expected, rtol=1e-14)
        return cost, tape.gradient(cost, v)

    assert_gradient(cost_and_gradient, x)


def test_function_of_numpy_that_a_tape_would_not_see_is_refused() -> None:
    x = Variable([1.0, 2.0])
    functions: list[Any] = [np.cumsum, np.kron, np.var, np.hstack]
    calls: list[Any] = [(x,), (x, x), (x,), ([x, x],)]
    for function, inputs in zip(functions, calls, strict=True):
        with GradientTape(), pytest.raises(ModelError, match=f"numpy's {function.__name__} got"):
            function(*inputs)
        # Without a tape there is nothing to lose.
        plain = (
            [[x.value, x.value]]
            if function is np.hstack
            else [part.value if isinstance(part, Variable) else part for part in inputs]
        )
        assert function(*inputs).tolist() == function(*plain).tolist()
    with GradientTape():
        assert np.shape(x) == (2,)
    with pytest.raises(ModelError, match="numpy's multiply got"):
        x.value[...] *= x


def test_comparisons_give_plain_arrays() -> None:
    x = Variable([1.0, 2.0, 3.0])
    with GradientTape() as tape:
        y = x[x > 1.5].sum() + x[x.value <= 1.5].sum() * 10.0
    assert tape.gradient(y, x).tolist() == [10.0, 1.0, 1.0]
    assert (x < Variable(2.0)).tolist() == [True, False, False]
    assert (x >= [1, 3, 3]).tolist() == [True, False, True]
    assert (np.array([2.0]) < x).tolist() == [False, False, True]
    assert np.isfinite(x).tolist() == [True, True, True]
    assert Variable(0.5) < 1.0


def test_variable_of_one_number_is_that_number() -> None:
    x = Variable([[2.5]])
    assert (float(x), bool(x), f"{x:.2f}", f"{Variable(1.0)}") == (
        2.5,
        True,
        "2.50",
        "Variable(array(1.))",
    )
    assert not Variable(0.0)
    assert x.ndim == 2


@pytest.mark.parametrize("value", [10**30, [10**30, 1], np.float32(3.0), True, [[1, 2], [3, 4]]])
def test_real_numbers_of_any_kind_become_floats(value: Any) -> None:
    x = Variable(value)
    assert x.dtype.kind == "f"
    assert x.value.tolist() == np.asarray(value, np.float64).tolist()


def test_whole_numbers_become_floats_where_they_are_computed_with() -> None:
    count = Variable([1, 2], dtype=np.int64)
    assert np.asarray(np.exp(count)).tolist() == np.exp([1.0, 2.0]).tolist()
    assert (count / 2).value.tolist() == [0.5, 1.0]
    for moved in (count[1], count.T, count.reshape(2, 1)):
        assert moved.dtype == np.int64
