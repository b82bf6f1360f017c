"""The weights that a model starts with, drawn or given from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distsgd.errors import ModelError
from distsgd.models.weights import weights_vector
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.nn.regularisation import LayerNorm

LIMITS = [("glorot", np.sqrt(6 / 300)), ("he", np.sqrt(6 / 200))]


@pytest.mark.parametrize(("init", "limit"), LIMITS)
def test_start_weights_are_uniform_within_the_limit(init: str, limit: float) -> None:
    model = Network([Dense(100)], "quadratic", (200,))
    weight = model.views(model.initialise(init, 3, np.float64))["layers.0.weight"]
    assert abs(weight).max() <= limit
    assert abs(weight).max() > 0.999 * limit
    # The variance of a uniform number is limit² / 3; that of 20,000 of them is within 3 %.
    np.testing.assert_allclose(weight.var(), limit**2 / 3, rtol=0.03)


def test_zeros_start_at_0_and_gains_at_1() -> None:
    model = Network([Dense(4, "relu"), LayerNorm(), Dense(2)], "quadratic", (3,))
    flat = model.initialise("zeros", 5, np.float32)
    views = model.views(flat)
    assert views["layers.1.gain"].tolist() == [1.0] * 4
    assert flat.sum() == 4
    assert not np.signbit(flat).any()


def test_start_weights_depend_on_seed_and_parameter_only() -> None:
    model = Network([Dense(4), Dense(4)], "quadratic", (4,))
    first = model.initialise("glorot", 0, np.float32)
    assert first.dtype == np.float32
    assert first.tobytes() == model.initialise("glorot", 0, np.float64).astype(np.float32).tobytes()
    views = model.views(first)
    assert views["layers.0.weight"].tolist() != views["layers.1.weight"].tolist()
    assert views["layers.0.bias"].tolist() == [0.0] * 4
    assert first.tolist() != model.initialise("glorot", 1, np.float32).tolist()
    with pytest.raises(ModelError, match="did you mean 'glorot'"):
        model.initialise("glorott", 0)


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        ("text", "'text' is of dtype <U4; must be real numbers"),
        ([["1", "2"]], "must be real numbers"),
        ([[1.0, 2.0], [3.0]], "layers.0.weight: .*rows of equal length"),
        ([[1j, 2.0]], "dtype complex128; must be real numbers"),
        (None, "None is of dtype object"),
        ([1.0, 2.0], r"layers.0.weight has shape \(2,\); must be \(1, 2\)"),
        ([[np.nan, 2.0]], "holds values that are not finite"),
        ([[1e300, 2.0]], "holds 1e.300, too large for float32"),
    ],
)
def test_weights_that_are_no_finite_numbers_of_the_dtype_are_refused(
    weight: Any, says: str
) -> None:
    model = Network([Dense(2)], "quadratic", (1,))
    with pytest.raises(ModelError, match=rf"weights do not fit: .*{says}"):
        weights_vector(model, {"layers.0.weight": weight, "layers.0.bias": np.zeros(2)}, np.float32)


def test_weights_are_taken_from_lists_and_whole_numbers() -> None:
    model = Network([Dense(2)], "quadratic", (1,))
    given: dict[str, Any] = {"layers.0.weight": [[1, 2]], "layers.0.bias": (True, 0.5)}
    assert weights_vector(model, given, np.float32).tolist() == [1.0, 2.0, 1.0, 0.5]
