import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.optim.clip import CHUNK_LENGTH, chunks, clip_factor, squared_norm


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


@pytest.mark.parametrize("exponent", [-20, -60, -80, -100])
def test_squared_norm_does_not_vanish_with_float32(exponent: int) -> None:
    vector = np.full(300_000, 2.0**exponent, np.float32)
    assert squared_norm(vector) == pytest.approx(300_000 * 4.0**exponent, rel=1e-6)
    assert squared_norm(np.zeros(9, np.float32)) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_squared_norm_of_what_is_not_finite_is_not_finite(bad: float) -> None:
    assert not math.isfinite(squared_norm(np.array([1.0, bad], np.float32)))
    assert not math.isfinite(squared_norm(np.array([1.0, bad])))


@given(norm=st.floats(0.0, 1e30), max_norm=st.floats(1e-3, 10.0))
def test_clip_factor_scales_a_long_gradient_to_the_norm_asked_for(
    norm: float, max_norm: float
) -> None:
    assert norm * clip_factor(norm, max_norm) == pytest.approx(min(norm, max_norm), rel=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_factor_leaves_a_norm_that_is_not_finite_for_the_caller(bad: float) -> None:
    assert clip_factor(bad, 0.5) == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, CHUNK_LENGTH, CHUNK_LENGTH + 1, 3 * CHUNK_LENGTH + 5])
def test_spans_cover_a_vector_once_and_in_order(size: int, dtype: type) -> None:
    vector = random_vector(size, dtype)
    cut = [vector[chunk] for chunk in chunks(size)]
    assert all(0 < len(chunk) <= CHUNK_LENGTH for chunk in cut)
    assert b"".join(chunk.tobytes() for chunk in cut) == vector.tobytes()
