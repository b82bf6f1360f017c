from __future__ import annotations

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
