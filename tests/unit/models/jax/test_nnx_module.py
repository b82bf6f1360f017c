from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="models of JAX need JAX")
pytest.importorskip("flax", reason="modules of flax nnx need flax")

import jax
from flax import nnx

from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models import Model, Recipe, RowSpec, jax_model, model_of
from tests.unit.models.jax.factories import INPUTS, OUTPUTS, cross_entropy, numbers

ROWS = RowSpec((INPUTS,), "class", OUTPUTS)


class Perceptron(nnx.Module):  # type: ignore[misc, unused-ignore]
    """With what training has: normalising, chance, a list of layers."""

    def __init__(self, rate: float, rngs: Any) -> None:
        self.layers = nnx.List([nnx.Linear(INPUTS, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.dropouts = nnx.List([nnx.Dropout(rate, rngs=rngs) for _ in range(2)])
        self.last = nnx.Linear(8, OUTPUTS, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            x = dropout(nnx.gelu(self.norm(layer(x))))
        return self.last(x)


@jax_model
def perceptron(seed: int, rate: float = 0.5) -> Any:
    return Perceptron(rate, nnx.Rngs(seed)), cross_entropy, jax.nn.softmax


@jax_model
def with_batch_norm(seed: int) -> Any:
    rngs = nnx.Rngs(seed)
    layers = nnx.Linear(INPUTS, OUTPUTS, rngs=rngs), nnx.BatchNorm(OUTPUTS, rngs=rngs)
    return nnx.Sequential(*layers), cross_entropy


def made(factory: Any, **options: Any) -> Model:
    return model_of(Recipe(factory, options, ROWS))


def losses(model: Model, weights: Array, key: int | None) -> tuple[Array, Array, Array]:
    gradients = np.empty_like(weights)
    bound = model.program(10, weights.dtype, per_sample=True).bind(
        numbers(10, INPUTS, dtype=weights.dtype.name),
        np.arange(10) % OUTPUTS,
        weights=weights,
        gradients=None if key is None else gradients,
        keys=None if key is None else np.array([key], np.uint64),
    )
    bound.forward()
    if key is not None:
        bound.backward()
    norms = bound.squared_norms_N
    return bound.losses_N, gradients, np.empty(0) if norms is None else norms


def test_a_module_is_its_parameters_by_their_paths() -> None:
    model = made(perceptron)
    names = [spec.name for spec in model.parameters]
    assert names[:4] == ["last.bias", "last.kernel", "layers.0.bias", "layers.0.kernel"]
    assert names[-2:] == ["norm.bias", "norm.scale"]
    assert (model.chance, model.has_probabilities) == ("block", True)
    assert model.outline == "perceptron()"
    assert model.predict(model.initialise("", 1, np.float32), numbers(3, INPUTS)).shape == (
        3,
        OUTPUTS,
    )


def test_start_weights_are_those_of_the_module_made_with_the_seed() -> None:
    model = made(perceptron)
    flat = model.initialise("", 5, np.float32)
    expected = Perceptron(0.5, nnx.Rngs(5)).layers[1].kernel[...]
    np.testing.assert_array_equal(model.views(flat)["layers.1.kernel"], expected)
    assert flat.tobytes() == made(perceptron).initialise("", 5, np.float32).tobytes()


def test_dropout_is_keyed_by_the_block_in_training_and_off_in_evaluation() -> None:
    model, sure = made(perceptron), made(perceptron, rate=0.0)
    weights = model.initialise("", 1, np.float32)
    first, again, other = (losses(model, weights, key)[0] for key in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    evaluated, without = losses(model, weights, None)[0], losses(sure, weights, 3)[0]
    np.testing.assert_allclose(evaluated, without, rtol=1e-5)


def test_norms_with_chance_are_those_of_each_row_in_its_block() -> None:
    model = made(perceptron)
    weights = model.initialise("", 1, np.float64)
    _, _, norms = losses(model, weights, 3)
    program = model.program(10, np.float64, per_sample=False)
    x, target = numbers(10, INPUTS, dtype="float64"), np.arange(10) % OUTPUTS
    moved = np.empty_like(weights)
    bound = program.bind(x, target, weights=moved, keys=np.array([3], np.uint64))
    jacobian_PN = []
    for direction in np.eye(len(weights)) * 1e-5:
        sides = []
        for sign in (1, -1):
            moved[...] = weights + sign * direction
            bound.forward()
            sides.append(bound.losses_N.copy())
        jacobian_PN.append((sides[0] - sides[1]) / 2e-5)
    np.testing.assert_allclose(norms, (np.array(jacobian_PN) ** 2).sum(0), rtol=1e-6)


def test_state_that_training_sets_is_refused_by_name() -> None:
    model = made(with_batch_norm)
    with pytest.raises(ModelError, match=r"Sequential of .*sets layers.1.mean \(BatchStat\)"):
        losses(model, model.initialise("", 1, np.float32), 1)


def test_a_factory_that_is_not_told_the_seed_is_refused() -> None:
    factory = jax_model(lambda: (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), cross_entropy))
    with pytest.raises(ModelError, match="makes a Linear but has no parameter seed"):
        made(factory)


@jax_model
def drawn(seed: int) -> Any:
    module = nnx.Linear(INPUTS, OUTPUTS, rngs=nnx.Rngs(seed))
    module.kernel = nnx.Param(jax.random.normal(jax.random.key(seed), (INPUTS, OUTPUTS)))
    return module, cross_entropy


def test_start_weights_of_a_float64_run_are_drawn_in_float64() -> None:
    model = made(drawn)
    kernel = model.views(model.initialise("", 3, np.float64))["kernel"]
    assert not np.array_equal(kernel, kernel.astype(np.float32))
    assert model.initialise("", 3, np.float32).dtype == np.float32


def test_a_loss_that_is_named_besides_that_of_the_factory_is_refused() -> None:
    with pytest.raises(ModelError, match=r"remove loss from \[model\]"):
        model_of(Recipe(perceptron, {}, ROWS, loss="squared_error"))
