"""The four equations of backpropagation, read from a program layer by layer, sample by sample.

a is an activation, z = a @ W + b a weighted input, δ = ∂C/∂z.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.autodiff import BoundProgram, assert_gradient
from distsgd.errors import ModelError
from distsgd.nn import Convolution, Dense, Flatten, LayerNorm, MaxPool, Network, Reshape

Floats = NDArray[np.float64]
ROWS = 5
LAYERS = ["layers.0", "layers.1", "layers.2"]
MODEL = Network([Dense(6, "sigmoid"), Dense(4, "sigmoid"), Dense(3, "sigmoid")], "quadratic", (7,))
CHANCE = np.random.default_rng(0)
X = CHANCE.standard_normal((ROWS, 7))
TARGET = CHANCE.uniform(0, 1, (ROWS, 3))
WEIGHTS = CHANCE.uniform(-1, 1, MODEL.num_parameters)


def run(
    model: Network, x: Floats, target: Floats, weights: Floats, *, keep_all: bool = True
) -> tuple[BoundProgram, dict[str, Floats]]:
    gradients = np.empty(model.num_parameters)
    program = model.program(len(x), np.float64, per_sample=True, keep_all=keep_all)
    bound = program.bind(x, target, weights=weights, gradients=gradients)
    bound.forward()
    bound.backward()
    return bound, model.views(gradients)


def slope(z: Floats) -> Floats:
    a = 1 / (1 + np.exp(-z))
    return np.asarray(a * (1 - a))


def test_delta_of_the_output_layer_is_a_hadamard_product() -> None:
    bound, _ = run(MODEL, X, TARGET, WEIGHTS)
    last = bound.layer("layers.2")
    assert last.weighted_input is not None
    cost_by_output = bound.outputs_NO - TARGET
    np.testing.assert_allclose(last.delta, cost_by_output * slope(last.weighted_input), rtol=1e-12)


def test_delta_of_a_layer_follows_from_the_next() -> None:
    bound, _ = run(MODEL, X, TARGET, WEIGHTS)
    for before, after in pairwise(LAYERS):
        z = bound.layer(before).weighted_input
        assert z is not None
        weight = MODEL.views(WEIGHTS)[f"{after}.weight"]
        expected = (bound.layer(after).delta @ weight.T) * slope(z)
        np.testing.assert_allclose(bound.layer(before).delta, expected, rtol=1e-12)


@pytest.mark.parametrize("keep_all", [True, False])
def test_gradients_by_bias_and_weight_follow_from_delta(keep_all: bool) -> None:  # noqa: FBT001 -- drawn.
    bound, summed = run(MODEL, X, TARGET, WEIGHTS, keep_all=keep_all)
    norms = np.zeros(ROWS)
    for name in LAYERS:
        layer = bound.layer(name)
        by_bias = bound.sample_gradients(f"{name}.bias")
        by_weight = bound.sample_gradients(f"{name}.weight")
        np.testing.assert_allclose(by_bias, layer.delta, rtol=1e-12)
        outer = layer.inputs[:, :, None] * layer.delta[:, None, :]
        np.testing.assert_allclose(by_weight, outer, rtol=1e-12)
        np.testing.assert_allclose(by_weight.sum(0), summed[f"{name}.weight"], rtol=1e-10)
        np.testing.assert_allclose(by_bias.sum(0), summed[f"{name}.bias"], rtol=1e-10)
        norms += (by_weight**2).sum((1, 2)) + (by_bias**2).sum(1)
    assert bound.squared_norms_N is not None
    np.testing.assert_allclose(bound.squared_norms_N, norms, rtol=1e-12)


def test_delta_is_the_central_difference_by_the_weighted_input() -> None:
    # A bias moves z of every sample alike, so that of one sample alone it is δ.
    for row in range(ROWS):
        rows = slice(row, row + 1)
        for name in LAYERS:

            def cost_and_delta(bias: Floats, name: str = name, rows: slice = rows) -> object:
                weights = WEIGHTS.copy()
                MODEL.views(weights)[f"{name}.bias"][...] = bias
                bound, _ = run(MODEL, X[rows], TARGET[rows], weights)
                return bound.losses_N.sum(), bound.layer(name).delta[0]

            assert_gradient(cost_and_delta, MODEL.views(WEIGHTS)[f"{name}.bias"])  # type: ignore[arg-type] # a pair


def test_equations_hold_for_any_layers_sample_by_sample() -> None:
    layers = [
        Reshape((5, 5, 2)),
        Convolution(3, 3, padding="same", activation="tanh"),
        LayerNorm(),
        MaxPool(2),
        Flatten(),
        Dense(4),
    ]
    model = Network(layers, "quadratic", (50,))
    x, target = CHANCE.standard_normal((3, 50)), CHANCE.standard_normal((3, 4))
    weights = CHANCE.uniform(-1, 1, model.num_parameters)
    together, _ = run(model, x, target, weights)
    for row in range(3):
        alone, own = run(model, x[row : row + 1], target[row : row + 1], weights)
        for name in ("layers.1", "layers.2", "layers.5"):
            delta = together.layer(name).delta[row]
            np.testing.assert_allclose(delta, alone.layer(name).delta[0], rtol=1e-9, atol=1e-13)
        for spec in model.parameters:
            of_row = together.sample_gradients(spec.name)[row]
            np.testing.assert_allclose(of_row, own[spec.name], rtol=1e-9, atol=1e-13)


def test_reading_what_is_not_there_says_what_is() -> None:
    bound, _ = run(MODEL, X, TARGET, WEIGHTS, keep_all=False)
    assert bound.layer("layers.0").weighted_input is None
    with pytest.raises(ModelError, match=r"'layers\.7' has no gradient here; .*layers\.0\.weight"):
        bound.layer("layers.7")
    forward_only = MODEL.program(ROWS, np.float64, per_sample=False).bind(
        X, TARGET, weights=WEIGHTS
    )
    with pytest.raises(ModelError, match="bind with gradients="):
        forward_only.sample_gradients("layers.0.weight")
