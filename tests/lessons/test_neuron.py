"""One neuron: a sigmoid of a weighted sum, its squared error, and the gradient through every
value in between."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable

TARGET = 2.0


def test_neuron_forward_and_backward_are_the_printed_numbers() -> None:
    w, x, theta = Variable([-1.0, -1.5]), Variable([-3.0, 2.0]), Variable(0.5)
    with GradientTape(persistent=True) as tape:
        v = (w * x).sum() + theta
        prediction = f.sigmoid(v)
        error = prediction - TARGET
        loss = error**2
    four_digits = 5e-5
    for value, printed in ((v, 0.5), (prediction, 0.6225), (error, -1.3775), (loss, 1.8976)):
        assert float(value) == pytest.approx(printed, abs=four_digits)
    by_error, by_v, by_theta = tape.gradient(loss, [error, v, theta])
    assert by_error == pytest.approx(-2.7551, abs=four_digits)
    assert tape.gradient(prediction, v) == pytest.approx(0.2350, abs=four_digits)
    assert by_v == by_theta == pytest.approx(-0.6475, abs=four_digits)
    by_w, by_x = tape.gradient(loss, (w, x))
    np.testing.assert_allclose(by_w, [1.9424, -1.2949], rtol=0, atol=four_digits)
    np.testing.assert_allclose(by_x, [0.6475, 0.9712], rtol=0, atol=four_digits)


def test_neuron_as_a_model_gives_the_same_numbers() -> None:
    from distsgd.nn import Dense, Network

    model = Network([Dense(1, "sigmoid")], "squared_error", (2,))
    gradients, by_input = np.empty(3), np.empty((1, 2))
    bound = model.program(1, np.float64, per_sample=False).bind(
        np.array([[-3.0, 2.0]]),
        np.array([[TARGET]]),
        weights=np.array([-1.0, -1.5, 0.5]),
        gradients=gradients,
        x_gradient=by_input,
    )
    bound.forward()
    bound.backward()
    assert bound.losses_N[0] == pytest.approx(1.8976, abs=5e-5)
    np.testing.assert_allclose(gradients, [1.9424, -1.2949, -0.6475], rtol=0, atol=5e-5)
    np.testing.assert_allclose(by_input, [[0.6475, 0.9712]], rtol=0, atol=5e-5)
