from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.autodiff.gate import OpContext
from distsgd.autodiff.ops.linear import LARGE, WIDE, stage_product, stage_row_squared_norms


@given(rows=st.integers(1, 5), inner=st.integers(1, 5), columns=st.integers(1, 5))
def test_product_is_that_of_matmul_for_any_shape(rows: int, inner: int, columns: int) -> None:
    chance = np.random.default_rng(0)
    left, right = chance.standard_normal((rows, inner)), chance.standard_normal((inner, columns))
    out = np.full((rows, columns), np.nan)
    stage_product(left, right, out)()
    np.testing.assert_allclose(out, left @ right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("columns", [1, 10, LARGE // 100 + 1])
def test_outer_product_has_the_numbers_of_the_matrix_product(columns: int) -> None:
    chance = np.random.default_rng(0)
    x_NI = chance.standard_normal((1, 100)).astype(np.float32)
    d_NO = chance.standard_normal((1, columns)).astype(np.float32)
    out_IO = np.full((100, columns), np.nan, np.float32)
    stage_product(x_NI.T, d_NO, out_IO)()
    assert np.array_equal(out_IO, x_NI.T @ d_NO)


@pytest.mark.parametrize("columns", [1, WIDE - 1, WIDE, 300])
def test_row_squared_norms_are_those_of_a_loop(columns: int) -> None:
    x_NI, out_N = np.random.default_rng(0).standard_normal((4, columns)), np.empty(4)
    for operation in stage_row_squared_norms(
        OpContext((), out_N, np.empty), "squares", x_NI, out_N
    ):
        operation()
    np.testing.assert_allclose(out_N, [sum(v * v for v in row) for row in x_NI.tolist()])
