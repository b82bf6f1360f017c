from __future__ import annotations

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.nn import Dense, Network

N, O = 7, 3  # noqa: E741 -- the letters of the shapes.
OUTPUTS_NO = uniform(0, Purpose.PROBE, count=N * O).reshape(N, O) * 4.0 - 2.0
GOALS_NO = uniform(1, Purpose.PROBE, count=N * O).reshape(N, O)
CLASSES_N = np.arange(N) % O


def softmax(z_NO: Array) -> Array:
    exp_NO: Array = np.exp(z_NO)
    normalised_NO: Array = exp_NO / exp_NO.sum(axis=1, keepdims=True)
    return normalised_NO


@pytest.mark.parametrize(
    ("loss", "predictions_NO", "target", "deltas_NO"),
    [
        ("quadratic", OUTPUTS_NO, GOALS_NO, OUTPUTS_NO - GOALS_NO),
        ("squared_error", OUTPUTS_NO, GOALS_NO, 2.0 * (OUTPUTS_NO - GOALS_NO)),
        (
            "softmax_cross_entropy",
            softmax(OUTPUTS_NO),
            CLASSES_N,
            softmax(OUTPUTS_NO) - np.eye(O)[CLASSES_N],
        ),
        (
            "sigmoid_cross_entropy",
            1.0 / (1.0 + np.exp(-OUTPUTS_NO)),
            GOALS_NO,
            1.0 / (1.0 + np.exp(-OUTPUTS_NO)) - GOALS_NO,
        ),
    ],
)
@pytest.mark.parametrize("rows", [1, N])
def test_deltas_are_prediction_minus_goal_row_by_row(
    loss: str, predictions_NO: Array, target: Array, deltas_NO: Array, rows: int
) -> None:
    outputs_NO, targets = OUTPUTS_NO[:rows].copy(), target[:rows].copy()
    predictions, deltas = Network([Dense(O)], loss, (1,)).seen(outputs_NO, targets)
    np.testing.assert_allclose(predictions, predictions_NO[:rows], rtol=1e-12)
    np.testing.assert_allclose(deltas, deltas_NO[:rows], atol=1e-14)
    assert targets.tobytes() == target[:rows].tobytes()
    for array in (predictions, deltas):
        assert not np.shares_memory(array, outputs_NO)
        assert not np.shares_memory(array, targets)
