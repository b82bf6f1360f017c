from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.autodiff.check import assert_gradient, check_gradient
from distsgd.errors import ModelError

Floats = NDArray[np.float64]


@pytest.mark.parametrize("x", [np.array(123.456), np.arange(3.0), np.arange(20.0).reshape(4, 5)])
def test_check_passes_the_gradient_of_a_square(x: Floats) -> None:
    assert check_gradient(lambda x: (np.sum(x**2), 2 * x), x).passed


def test_check_names_the_first_bad_index_and_both_values() -> None:
    def wrong(x: Floats) -> tuple[float, Floats]:
        gradient = 2 * x
        gradient[1, 2] += 1e-3
        gradient[3, 4] += 1.0
        return float(np.sum(x**2)), gradient

    found = check_gradient(wrong, np.arange(20.0).reshape(4, 5))
    assert not found.passed
    assert found.index == (1, 2)
    np.testing.assert_allclose([found.numerical, found.analytical], [14.0, 14.001], atol=1e-6)
    with pytest.raises(ModelError, match=r"index \(1, 2\) is 14.001"):
        assert_gradient(wrong, np.arange(20.0).reshape(4, 5))


def test_check_restores_chance_before_each_call() -> None:
    generator = np.random.default_rng(0)

    def noisy(x: Floats) -> tuple[float, Floats]:
        factors = generator.standard_normal(x.shape)
        return float(np.sum(factors * x**2)), 2 * factors * x

    assert check_gradient(noisy, np.arange(5.0), generator=generator).passed
    assert not check_gradient(noisy, np.arange(5.0)).passed


def by_python(shape: tuple[int, ...]) -> Floats:
    return np.array([random.gauss() for _ in range(int(np.prod(shape)))]).reshape(shape)


def by_numpy(shape: tuple[int, ...]) -> Floats:
    drawn: Floats = np.random.standard_normal(shape)  # noqa: NPY002 -- the subject.
    return drawn


@pytest.mark.parametrize("draw", [by_python, by_numpy])
def test_check_restores_global_chance_before_each_call_and_at_the_end(
    draw: Callable[[tuple[int, ...]], Floats],
) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 -- the subject.
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index] # numpy's stub knows the other kind, too.  # noqa: NPY002

    def noisy(x: Floats) -> tuple[float, Floats]:
        factors = draw(x.shape)
        return float(np.sum(factors * x**2)), 2 * factors * x

    assert check_gradient(noisy, np.arange(5.0)).passed
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]  # noqa: NPY002
    assert draw((2,)).tolist() != draw((2,)).tolist()


def test_check_restores_chance_where_the_function_fails() -> None:
    generator = np.random.default_rng(0)
    states = random.getstate(), generator.bit_generator.state

    def failing(x: Floats) -> tuple[float, Floats]:
        raise RuntimeError(str(x + generator.random() + random.random()))  # noqa: S311

    with pytest.raises(RuntimeError):
        check_gradient(failing, np.ones(2), generator=generator)
    assert (random.getstate(), generator.bit_generator.state) == states


def test_check_refuses_what_is_no_cost_and_gradient() -> None:
    calls: list[tuple[Any, str]] = [
        (lambda x: float(x.sum()), "gave float; must give a loss and its gradient"),
        (lambda x: (x, x, x), "gave tuple"),
        (lambda x: (float(x.sum()), None), "gradient is None"),
        (lambda x: ("one", x), "must be real numbers"),
        (lambda x: (float(x.sum()), "one"), "must be real numbers"),
    ]
    for function, says in calls:
        with pytest.raises(ModelError, match=says):
            check_gradient(function, np.ones(2))
    with pytest.raises(ModelError, match=r"the function is 3\.0; must be callable"):
        check_gradient(3.0, 1.0)  # type: ignore[arg-type] # the mistake
    with pytest.raises(ModelError, match="step is 'small'"):
        check_gradient(lambda x: (x**2, 2 * x), 1.0, step="small")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="step is 0"):
        check_gradient(lambda x: (x**2, 2 * x), 1.0, step=0)
    with pytest.raises(ModelError, match="tolerance is nan"):
        check_gradient(lambda x: (x**2, 2 * x), 1.0, tolerance=np.nan)
    with pytest.raises(ModelError, match="must be real numbers"):
        check_gradient(lambda x: (x**2, 2 * x), "three")


def test_check_fails_on_not_a_number() -> None:
    assert not check_gradient(
        lambda x: (float(np.sum(x)), np.full_like(x, np.nan)), np.ones(2)
    ).passed


def test_check_leaves_its_argument_alone() -> None:
    def meddling(x: Floats) -> tuple[float, Floats]:
        cost, gradient = float(np.sum(x**2)), 2 * x
        x[...] = 0
        return cost, gradient

    x = np.arange(3.0)
    assert check_gradient(meddling, x).passed
    assert x.tolist() == [0.0, 1.0, 2.0]


def test_check_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="the gradient has shape"):
        check_gradient(lambda x: (float(np.sum(x)), np.ones(3)), np.ones(2))
    with pytest.raises(ModelError, match="must be one number"):
        check_gradient(lambda x: (x, np.ones(2)), np.ones(2))
