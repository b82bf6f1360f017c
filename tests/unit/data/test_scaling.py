from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distsgd.data.scaling import RunningStatistics, standardise_inplace


@given(cuts=st.lists(st.integers(0, 200), max_size=5), offset=st.sampled_from([0.0, 1e9]))
def test_running_statistics_equal_those_of_all_rows(cuts: list[int], offset: float) -> None:
    x = np.random.default_rng(1).normal(offset, 2.0, (200, 3))
    running = RunningStatistics(3)
    for part in np.split(x, sorted(cuts)):
        running.add(part)
    found = running.result()
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-13)
    # The two-pass deviation itself is exact to about eps * offset / deviation.
    np.testing.assert_allclose(found.deviation, x.std(axis=0), rtol=1e-13 + 2e-16 * offset)
    assert found.minimum == tuple(x.min(axis=0))
    assert found.maximum == tuple(x.max(axis=0))


def test_a_constant_feature_becomes_zero() -> None:
    x = np.full((1000, 1), 0.1)
    running = RunningStatistics(1)
    running.add(x)
    for kind in ("mean_std", "min_max"):
        shift, scale = running.result().shift_and_scale(kind)
        assert scale[0] == 1.0
        copy = x.copy()
        standardise_inplace(copy, shift, scale)
        assert not copy.any()


def test_one_row_has_statistics() -> None:
    running = RunningStatistics(2)
    running.add(np.array([[1.0, 2.0]]))
    assert running.result().deviation == (0.0, 0.0)
