from __future__ import annotations

import math

import numpy as np
import pytest

from distsgd.lessons.coordinate_search import CoordinateSearch

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
    moved = RULE.moved(dtype(0.5), up_loss=up_loss, down_loss=down_loss)
    assert moved == expected
    assert moved.dtype == dtype
