from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.errors import ModelError
from distsgd.statistics import largest_learning_rate


@given(rows=st.integers(1, 8), features=st.integers(1, 5), seed=st.integers(0, 1000))
def test_descent_on_the_steepest_direction_shrinks_below_and_grows_above(
    rows: int, features: int, seed: int
) -> None:
    x_NI = np.random.default_rng(seed).normal(size=(rows, features))
    largest = largest_learning_rate(x_NI)
    steepest_I = np.linalg.svd(x_NI)[2][0]
    for rate, shrinks in ((0.99 * largest, True), (1.01 * largest, False)):
        # The goals are 0, so that the weights are the error: mean ½(x·w)².
        weights_I = steepest_I - rate * x_NI.T @ (x_NI @ steepest_I) / rows
        assert (np.linalg.norm(weights_I) < 1.0) == shrinks


def test_numbers_of_any_type_are_taken() -> None:
    x_NI = np.array([[3, 4]], np.float32)
    assert largest_learning_rate(x_NI) == pytest.approx(2 / 25)


@pytest.mark.parametrize("scale", [1e-150, 1e140])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    x_NI = np.array([[3.0, 4.0]]) * scale
    assert largest_learning_rate(x_NI) == pytest.approx(2 / 25 / scale / scale)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones(3), r"shape \(3,\); must be \[rows, features\]"),
        (np.float64(3.0), r"shape \(\)"),
        (np.zeros((2, 3)), "is 0; must be finite and not 0"),
        (np.ones((0, 3)), "is 0; must be"),
        (np.array([[1.0, np.inf]]), "is inf; must be"),
        (np.array([[1.0, np.nan]]), "is nan; must be"),
    ],
)
def test_inputs_that_say_nothing_are_refused(x: np.ndarray, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        largest_learning_rate(x)
