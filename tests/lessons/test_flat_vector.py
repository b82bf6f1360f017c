"""One hidden layer with its parameters as one flat vector: W1, b1, W2, b2, each row-major."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.autodiff import assert_gradient
from distsgd.nn import Dense, Network

Floats = NDArray[np.float64]
NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS, ROWS = 10, 5, 10, 20
CHANCE = np.random.default_rng(0)
X = CHANCE.standard_normal((ROWS, NUM_INPUTS))
CLASSES = CHANCE.integers(0, NUM_OUTPUTS, ROWS)
ONE_HOT = np.eye(NUM_OUTPUTS)[CLASSES]
PARAMETERS = CHANCE.standard_normal(115)


def network(loss: str) -> Network:
    return Network([Dense(NUM_HIDDEN, "sigmoid"), Dense(NUM_OUTPUTS)], loss, (NUM_INPUTS,))


def target_of(model: Network) -> NDArray[np.generic]:
    return CLASSES if model.target_kind == "class" else ONE_HOT


def forward_backward(model: Network, x: Floats, flat: Floats) -> tuple[float, Floats, Floats]:
    """Reduced cost, its gradient as one flat vector, and its gradient by the input."""
    gradients, by_input = np.empty_like(flat), np.empty_like(x)
    bound = model.program(ROWS, np.float64, per_sample=False).bind(
        x, target_of(model), weights=flat, gradients=gradients, x_gradient=by_input
    )
    bound.forward()
    bound.backward()
    return float(bound.losses_N.sum()), gradients, by_input


def test_flat_vector_has_115_numbers_in_the_order_of_the_layers() -> None:
    model = network("softmax_cross_entropy")
    expected = (NUM_INPUTS + 1) * NUM_HIDDEN + (NUM_HIDDEN + 1) * NUM_OUTPUTS
    assert model.num_parameters == expected == 115
    flat = np.arange(115.0)
    w1, b1, w2, b2 = model.views(flat).values()
    assert w1.tolist() == flat[:50].reshape(10, 5).tolist()
    assert b1.tolist() == flat[50:55].tolist()
    assert w2.tolist() == flat[55:105].reshape(5, 10).tolist()
    assert b2.tolist() == flat[105:].tolist()


def test_number_of_parameters_is_the_sum_over_the_layers() -> None:
    sizes = [7, 4, 9, 1, 3]
    model = Network([Dense(n) for n in sizes[1:]], "quadratic", sizes[:1])
    counts = [(before + 1) * n for before, n in pairwise(sizes)]
    assert model.num_parameters == sum(counts)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_cost_and_gradients_are_those_written_out(loss: str) -> None:
    model = network(loss)
    cost, gradients, by_input = forward_backward(model, X, PARAMETERS)
    w1, b1, w2, b2 = model.views(PARAMETERS).values()
    hidden = 1 / (1 + np.exp(-(X @ w1 + b1)))
    z = hidden @ w2 + b2
    if loss == "softmax_cross_entropy":
        predictions = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        expected = -(ONE_HOT * np.log(predictions)).sum()
    else:
        predictions = 1 / (1 + np.exp(-z))
        log = np.log(predictions), np.log(1 - predictions)
        expected = -(ONE_HOT * log[0] + (1 - ONE_HOT) * log[1]).sum()
    assert cost == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(model.predict(PARAMETERS, X), predictions, rtol=1e-12)
    delta2 = predictions - ONE_HOT
    delta1 = (delta2 @ w2.T) * hidden * (1 - hidden)
    flat = [X.T @ delta1, delta1.sum(0), hidden.T @ delta2, delta2.sum(0)]
    np.testing.assert_allclose(
        gradients, np.concatenate([part.reshape(-1) for part in flat]), rtol=1e-9, atol=1e-13
    )
    np.testing.assert_allclose(by_input, delta1 @ w1.T, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_gradients_pass_the_checker(loss: str) -> None:
    model = network(loss)
    assert_gradient(lambda flat: forward_backward(model, X, flat)[:2], PARAMETERS)
    assert_gradient(lambda x: forward_backward(model, x, PARAMETERS)[::2], X)
