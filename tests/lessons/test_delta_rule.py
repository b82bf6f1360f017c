"""The delta rule: a network without a hidden layer, whose gradient has a closed form."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd.nn import Dense, Network


@pytest.mark.parametrize(
    ("activation", "loss", "factor"),
    [
        (None, "quadratic", 1.0),
        (None, "squared_error", 2.0),
        ("sigmoid", "quadratic", 1.0),
        ("tanh", "squared_error", 2.0),
    ],
)
def test_gradient_is_error_times_slope_times_input(
    activation: str | None, loss: str, factor: float
) -> None:
    model = Network([Dense(3, activation)], loss, (4,))
    chance = np.random.default_rng(0)
    x, target = chance.standard_normal((6, 4)), chance.uniform(0, 1, (6, 3))
    flat, gradients = chance.uniform(-1, 1, model.num_parameters), np.empty(model.num_parameters)
    bound = model.program(6, np.float64, per_sample=False).bind(
        x, target, weights=flat, gradients=gradients
    )
    bound.forward()
    bound.backward()

    weights = model.views(flat)
    z = x @ weights["layers.0.weight"] + weights["layers.0.bias"]
    y = {None: z, "sigmoid": 1 / (1 + np.exp(-z)), "tanh": np.tanh(z)}[activation]
    slope = {None: 1.0, "sigmoid": y * (1 - y), "tanh": 1 - y**2}[activation]
    delta = factor * (y - target) * slope
    by_name = model.views(gradients)
    np.testing.assert_allclose(by_name["layers.0.weight"], x.T @ delta, rtol=1e-11)
    np.testing.assert_allclose(by_name["layers.0.bias"], delta.sum(0), rtol=1e-11)
