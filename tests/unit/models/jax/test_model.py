from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="models of JAX need JAX")

import jax
import jax.numpy as jnp

from distsgd.errors import ConfigError, ModelError
from distsgd.models import Model, Recipe, RowSpec, jax_model, model_of
from distsgd.models.factory import LIBRARY_BYTES
from tests.unit.models.jax.factories import (
    INPUTS,
    OUTPUTS,
    cross_entropy,
    mlp,
    next_token,
    numbers,
    recipe,
    regression,
)


def made(init: Callable[..., Any], apply: Any = lambda _, x: x, **options: Any) -> Model:
    rows = RowSpec((INPUTS,), "class", OUTPUTS)
    return model_of(Recipe(jax_model(lambda: (init, apply, cross_entropy)), options, rows))


def test_parameters_are_named_by_their_paths_in_the_order_of_the_tree() -> None:
    model = model_of(recipe("mlp", width=5))
    assert isinstance(model, Model)
    assert [tuple(spec) for spec in model.parameters] == [
        ("gain", ()),
        ("layers.0.b", (5,)),
        ("layers.0.w", (INPUTS, 5)),
        ("layers.1.b", (OUTPUTS,)),
        ("layers.1.w", (5, OUTPUTS)),
    ]
    assert model.num_parameters == 1 + 5 * (1 + INPUTS) + OUTPUTS * (1 + 5)
    assert model.outline == "tests.unit.models.jax.factories:mlp(width=5)"
    assert model.has_probabilities
    assert recipe("mlp").framework == "jax"
    assert model.library_bytes == LIBRARY_BYTES["jax"]
    assert model.to_dict()["parameters"][0] == ["gain", []]


def test_dataclasses_and_tuples_and_a_bare_array_are_trees_too() -> None:
    @jax.tree_util.register_dataclass
    @dataclass
    class Layer:
        weight: Any
        value: Any

    model = made(lambda _: (Layer(jnp.ones(2), {"value": jnp.ones(3)}), None, jnp.ones(1)))
    assert [spec.name for spec in model.parameters] == ["0.weight", "0.value.value", "2"]
    assert [spec.name for spec in made(lambda _: jnp.ones(2)).parameters] == ["parameters"]


def test_start_weights_are_those_of_init_by_the_key_of_the_seed() -> None:
    model = model_of(recipe("mlp"))
    flat = model.initialise("", 7, np.float32)
    assert flat.tobytes() == model_of(recipe("mlp")).initialise("", 7, np.float32).tobytes()
    assert flat.tobytes() != model.initialise("", 7 + (1 << 32), np.float32).tobytes()
    leaves = jax.tree_util.tree_leaves(mlp(INPUTS, OUTPUTS)[0](jax.random.key(7)))
    for view, leaf in zip(model.views(flat).values(), leaves, strict=True):
        np.testing.assert_allclose(view, leaf, rtol=1e-5)
    assert model.initialise("", 7, np.float64).dtype == np.float64


def test_the_model_travels_as_its_recipe() -> None:
    model = model_of(recipe("mlp", width=4))
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - Our own bytes.
    assert again.parameters == model.parameters
    assert len(pickle.dumps(model)) < 1000


def test_predictions_of_any_number_of_rows_are_what_prediction_shows() -> None:
    model = model_of(recipe("mlp"))
    flat = model.initialise("", 1, np.float32)
    x = numbers(300, INPUTS)
    predictions = model.predict(flat, x)
    assert predictions.shape == (300, OUTPUTS)
    np.testing.assert_allclose(predictions.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.predict(flat, x[:3]), predictions[:3], rtol=1e-5)
    assert model.predict(flat, x[:0]).shape == (0, OUTPUTS)
    assert model.predict(flat, x[:256]).tobytes() == predictions[:256].tobytes()


def test_what_is_seen_of_a_block_are_predictions_and_gradients_by_the_outputs() -> None:
    model = model_of(recipe("mlp"))
    outputs, target = numbers(9, OUTPUTS, dtype="float64"), np.arange(9) % OUTPUTS
    shown, deltas = model.seen(outputs, target)
    np.testing.assert_allclose(shown.sum(1), 1)
    np.testing.assert_allclose(deltas, shown - np.eye(OUTPUTS)[target], atol=1e-12)


def test_targets_may_be_numbers() -> None:
    model = model_of(Recipe(regression, {}, RowSpec((INPUTS,), "number", 1, (1,))))
    weights, x = model.initialise("", 1, np.float64), numbers(9, INPUTS, dtype="float64")
    target, gradients = numbers(9, 1, dtype="float64"), np.empty_like(weights)
    bound = model.program(9, np.float64, per_sample=True).bind(
        x, target, weights=weights, gradients=gradients
    )
    bound.forward()
    bound.backward()
    error = x @ weights - target[:, 0]
    np.testing.assert_allclose(bound.losses_N, error**2)
    np.testing.assert_allclose(gradients, 2 * error @ x)
    assert bound.squared_norms_N is not None
    np.testing.assert_allclose(bound.squared_norms_N, 4 * error**2 * (x**2).sum(1))


def test_rows_may_be_tokens_with_a_class_at_each_place() -> None:
    model = model_of(Recipe(next_token, {}, RowSpec((5,), "class", 4, (5,), num_levels=9)))
    weights = model.initialise("", 1, np.float64)
    tokens = np.floor(numbers(11, 5, dtype="float64") * 4.4 + 4.5)
    target, gradients = np.arange(55).reshape(11, 5) % 4, np.empty_like(weights)
    program = model.program(11, np.float64, per_sample=True)
    whole = program.bind(tokens, target, weights=weights, gradients=gradients)
    whole.forward()
    whole.backward()
    norms, summed = whole.squared_norms_N, gradients.copy()
    assert norms is not None
    for row in range(11):
        one = slice(row, row + 1)
        alone = program.bind(tokens[one], target[one], weights=weights, gradients=gradients)
        alone.forward()
        alone.backward()
        assert norms[row] == pytest.approx(gradients @ gradients, rel=1e-6)
        summed -= gradients
    np.testing.assert_allclose(summed, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("apply", "chance"),
    [
        (lambda _, x: x, "none"),
        (lambda _, x, key: x + (0 if key is None else 1), "block"),
        (lambda _, x, key=None: x + (0 if key is None else 1), "block"),
        (lambda _, x, slope=0.1: x * slope, "none"),
        (lambda _, x, *, key=None: x + (0 if key is None else 1), "none"),
    ],
)
def test_chance_is_read_from_the_signature(apply: Callable[..., Any], chance: str) -> None:
    assert made(lambda _: jnp.ones(1), apply).chance == chance


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        (lambda _: {}, "without parameters; must have at least one"),
        (lambda _: {"n": jnp.arange(3)}, "int32 in parameter n; must be floating-point"),
        (lambda _: {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, "two parameters a.b; rename one"),
        (lambda key: float(key) * jnp.ones(1), r"(?s)raises \w*TypeError.*test_model"),
    ],
)
def test_parameters_that_cannot_be_trained_are_refused(
    init: Callable[..., Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        made(init)


def test_a_start_that_is_not_finite_is_refused_by_name() -> None:
    model = made(lambda key: {"w": jnp.ones(2), "v": jnp.log(jax.random.uniform(key, (3,)) - 2)})
    with pytest.raises(ModelError, match="starts v with numbers that are not finite in float32"):
        model.initialise("", 1, np.float32)


@pytest.mark.parametrize("thing", [3, (), (len, len), (len, len, 3), (len,) * 5])
def test_factories_that_make_something_else_are_refused(thing: object) -> None:
    rows = RowSpec((INPUTS,), "class", OUTPUTS)
    with pytest.raises(ModelError, match=r"makes .*; must make \(init, apply, sample_losses\)"):
        model_of(Recipe(jax_model(lambda: thing), {}, rows))


def test_options_that_the_factory_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match="it takes width"):
        model_of(recipe("mlp", depth=3))


def test_nothing_of_the_users_jax_is_changed() -> None:
    before = dict(jax.config.values), dict(os.environ), jax.default_backend(), jax.devices()
    model = model_of(recipe("dropout"))
    for dtype in ("float32", "float64"):
        weights = model.initialise("", 1, dtype)
        bound = model.program(4, dtype, per_sample=True).bind(
            numbers(4, INPUTS, dtype=dtype),
            np.zeros(4, np.int64),
            weights=weights,
            gradients=weights.copy(),
            keys=np.ones(1, np.uint64),
        )
        bound.forward()
        bound.backward()
        assert model.arithmetic(dtype)["probe"] == model.arithmetic(dtype)["probe"]
    after = dict(jax.config.values), dict(os.environ), jax.default_backend(), jax.devices()
    assert after == before
    assert jnp.ones(2).devices() == {jax.devices()[0]}
    assert jnp.asarray(np.ones(2)).dtype == jnp.zeros(2).dtype


def test_a_loss_that_is_named_besides_that_of_the_factory_is_refused() -> None:
    with pytest.raises(ModelError, match=r'model.loss is "huber".* remove loss from \[model\]'):
        model_of(replace(recipe("mlp"), loss="huber"))


def test_predictions_of_no_rows_have_the_shape_of_an_output() -> None:
    model = model_of(recipe("mlp"))
    assert model.predict(model.initialise("", 0, np.float32), numbers(0, INPUTS)).shape == (
        0,
        OUTPUTS,
    )
