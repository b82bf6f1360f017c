import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.optim import clip_by_global_norm_inplace, squared_norm


def random_vector(size: int, dtype: type) -> NDArray[np.floating[Any]]:
    return np.random.default_rng(3).standard_normal(size).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 17) - 1, (1 << 18) + 3])
def test_squared_norm_is_the_sum_of_squares(size: int, dtype: type) -> None:
    vector = random_vector(size, dtype)
    expected = math.fsum(x * x for x in vector.astype(np.float64).tolist())
    # A float32 sum of 2^17 squares in at least 16 partial sums: at most 2^13 roundings each.
    tolerance = 2**13 * float(np.finfo(dtype).eps)
    assert squared_norm(vector) == pytest.approx(expected, rel=tolerance)
    assert squared_norm(vector) == squared_norm(vector.copy())


def test_squared_norm_does_not_overflow_with_float32() -> None:
    vector = np.full(300_000, 2.0**70, np.float32)
    assert squared_norm(vector) == 300_000 * 2.0**140


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_squared_norm_of_what_is_not_finite_is_not_finite(bad: float) -> None:
    assert not math.isfinite(squared_norm(np.array([1.0, bad], np.float32)))
    assert not math.isfinite(squared_norm(np.array([1.0, bad])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_leaves_a_short_gradient_as_it_is(dtype: type) -> None:
    grad = random_vector(100, dtype)
    before = grad.copy()
    norm = clip_by_global_norm_inplace(grad, 1000.0)
    assert norm == math.sqrt(squared_norm(before))
    assert grad.tobytes() == before.tobytes()


@given(size=st.integers(1, 200), max_norm=st.floats(1e-3, 10.0))
def test_clip_scales_a_long_gradient_to_the_norm_asked_for(size: int, max_norm: float) -> None:
    grad = random_vector(size, np.float64) + 20.0
    before = grad.copy()
    norm = clip_by_global_norm_inplace(grad, max_norm)
    assert norm == pytest.approx(float(np.linalg.norm(before)), rel=1e-13)
    assert float(np.linalg.norm(grad)) == pytest.approx(max_norm, rel=1e-13)
    np.testing.assert_allclose(grad * norm, before * max_norm, rtol=1e-13)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_leaves_a_gradient_that_is_not_finite_for_the_caller(bad: float) -> None:
    grad = np.array([1.0, bad], np.float32)
    assert not math.isfinite(clip_by_global_norm_inplace(grad, 0.5))
    assert grad[0] == 1.0


def test_clip_of_zeros_divides_by_nothing() -> None:
    grad = np.zeros(3, np.float32)
    assert clip_by_global_norm_inplace(grad, 0.5) == 0.0
    assert grad.tolist() == [0.0, 0.0, 0.0]
