"""Models that several tests make, by name too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.models import Recipe, RowSpec, jax_model

INPUTS, OUTPUTS = 12, 3


def numbers(*shape: int, name: int = 0, dtype: str = "float32") -> Array:
    """From -1 to 1, keyed by shape and `name`."""
    count = int(np.prod(shape))
    return (uniform(name, Purpose.PROBE, count, count=count) * 2 - 1).reshape(shape).astype(dtype)


def recipe(name: str, **options: Any) -> Recipe:
    rows = RowSpec((INPUTS,), "class", OUTPUTS)
    return Recipe(f"tests.unit.models.jax.factories:{name}", options, rows)


def cross_entropy(outputs: Any, target: Any) -> Any:
    logs = jax.nn.log_softmax(outputs)
    return -jnp.take_along_axis(logs, target[:, None], 1)[:, 0]


@jax_model
def mlp(inputs: int, outputs: int, width: int = 7) -> Any:
    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        return {
            "layers": [
                {"w": jax.random.normal(first, (inputs, width)) / 3, "b": jnp.zeros(width)},
                {"w": jax.random.normal(second, (width, outputs)) / 3, "b": jnp.zeros(outputs)},
            ],
            "gain": jnp.ones(()),
        }

    def apply(parameters: Any, x: Any) -> Any:
        first, second = parameters["layers"]
        hidden = jnp.tanh(x @ first["w"] + first["b"]) * parameters["gain"]
        return hidden @ second["w"] + second["b"]

    return init, apply, cross_entropy, jax.nn.softmax


@jax_model
def dropout(inputs: int, outputs: int) -> Any:
    init, without, losses, _ = mlp(inputs, outputs)

    def apply(parameters: Any, x: Any, key: Any) -> Any:
        if key is not None:
            x = x * jax.random.bernoulli(key, 0.5, x.shape) * 2
        return without(parameters, x)

    return init, apply, losses


@jax_model
def regression(inputs: int) -> Any:
    def init(key: Any) -> Any:
        return jax.random.normal(key, (inputs, 1))

    def losses(outputs: Any, target: Any) -> Any:
        return ((outputs - target) ** 2).sum(1)

    return init, lambda parameters, x: x @ parameters, losses


@jax_model
def next_token(levels: int, outputs: int) -> Any:
    def init(key: Any) -> Any:
        table, last = jax.random.split(key)
        return {
            "table": jax.random.normal(table, (levels, 6)),
            "last": jax.random.normal(last, (6, outputs)),
        }

    def apply(parameters: Any, tokens: Any) -> Any:
        met = jnp.cumsum(parameters["table"][tokens], axis=1)
        return jnp.tanh(met) @ parameters["last"]

    def losses(outputs: Any, target: Any) -> Any:
        logs = jax.nn.log_softmax(outputs)
        return -jnp.take_along_axis(logs, target[..., None], 2)[..., 0].mean(1)

    return init, apply, losses
