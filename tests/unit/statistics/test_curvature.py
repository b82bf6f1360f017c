from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
