from __future__ import annotations

import math

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.errors import ConfigError
from distsgd.lessons.coordinate_search import CoordinateSearch
from distsgd.optim.search import LossProbe, SearchRule

RULE = CoordinateSearch(0.25)


@pytest.mark.parametrize(
    ("up_loss", "down_loss", "expected"),
    [
        (1.0, 2.0, 0.75),
        (2.0, 1.0, 0.25),
        (1.0, 1.0, 0.5),
        (math.nan, 1.0, 0.25),
        (1.0, math.nan, 0.75),
        (math.nan, math.nan, 0.5),
        (math.inf, 1.0, 0.25),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weight_goes_where_the_loss_is_smaller(
    up_loss: float, down_loss: float, expected: float, dtype: type
) -> None:
    weights: Array = np.array([1.0, 0.5], dtype)
    losses = {0.75: up_loss, 0.25: down_loss}
    probe = LossProbe(lambda: losses[float(weights[1])], first=0.0, num_samples=1)
    free = np.arange(2)
    RULE.search_inplace(weights, probe, step=3, free=free, state={}, learning_rate=RULE.rate(0.1))
    assert weights.tolist() == [1.0, expected]


def test_coordinate_search_is_a_search_rule() -> None:
    assert isinstance(RULE, SearchRule)


@pytest.mark.parametrize("step_size", [0.0, -1.0, math.inf, math.nan, True, "0.1", None])
def test_step_size_that_is_no_number_above_0_is_refused(step_size: float) -> None:
    with pytest.raises(ConfigError, match=r"must be a number above 0 \(set step_size in"):
        CoordinateSearch(step_size)
