from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="models of JAX need JAX")

import jax
import jax.numpy as jnp

from distsgd.models.jax.device import as_runs_compute
from distsgd.models.jax.functions import Block, Functions
from distsgd.models.jax.norms import with_squared_norms
from distsgd.models.jax.uses import taps_of
from tests.unit.models.jax.factories import numbers

Outputs = Callable[[Any, Any, Any], Any]
ROWS = 6
ALL = -1  # Taps: one for each parameter.


def convolved(x: Any, kernel: Any, strides: tuple[int, ...], padding: Any, **more: Any) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **more)


def attention(p: Any, x: Any, key: Any) -> Any:
    del key
    q, k, v = (jnp.einsum("nti,ihd->nthd", x, it) for it in p[:3])
    weights = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", q, k) / 2)
    return jnp.einsum("nthd,hdo->nto", jnp.einsum("nhts,nshd->nthd", weights, v), p[3])


def layer_norm(p: Any, x: Any, key: Any) -> Any:
    del key
    centred = x - x.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(centred.var(-1, keepdims=True) + 1e-3) * p[0] + p[1]) * p[2]


def left_out(key: Any, values: Any) -> Any:
    return values * jax.random.bernoulli(key, 0.7, values.shape)


def scanned(p: Any, x: Any, key: Any) -> Any:
    del key
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ p[0] + p[1]), None), x, None, length=3)[0]


NHWC = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
Shape = tuple[int, ...]
CASES: dict[str, tuple[Sequence[Shape], Outputs, Shape, int]] = {
    "dense": (
        [(5, 4), (4,), (3, 4), (3,)],
        lambda p, x, _: jnp.tanh(x @ p[0] + p[1]) @ p[2].T + p[3],
        (5,),
        ALL,
    ),
    "samples in columns": (
        [(4, 5), (4, 1)],
        lambda p, x, _: jnp.tanh(p[0] @ x.T + p[1]).T,
        (5,),
        ALL,
    ),
    "as many inputs, outputs and rows": (
        [(ROWS, ROWS), (ROWS,)],
        lambda p, x, _: jnp.tanh(p[0] @ x.T + p[1][:, None]).T,
        (ROWS,),
        ALL,
    ),
    "over time, by pairs": (
        [(9, 8), (8,), (8, 8), (1, 3, 8)],
        lambda p, x, _: jnp.tanh((x @ p[0] + p[1] + p[3]) @ p[2]),
        (3, 9),
        ALL,
    ),
    "over time, by gradients": (
        [(3, 2), (2,)],
        lambda p, x, _: jnp.tanh(x @ p[0] + p[1]),
        (30, 3),
        ALL,
    ),
    "attention": ([(5, 2, 3), (5, 2, 3), (5, 2, 3), (2, 3, 5)], attention, (4, 5), ALL),
    "layer norm": ([(5,), (5,), ()], layer_norm, (3, 5), ALL),
    "embedding": (
        [(5, 4), (7, 4), (4, 3)],
        lambda p, x, _: (p[0][(x * 9).astype(jnp.int32) % 5] + p[1]) @ p[2],
        (7,),
        ALL,
    ),
    "convolution": (
        [(3, 3, 2, 4), (4,)],
        lambda p, x, _: (
            jnp.tanh(convolved(x, p[0], (2, 1), "SAME", rhs_dilation=(1, 2), **NHWC)) + p[1]
        ),
        (8, 9, 2),
        ALL,
    ),
    "convolution, channels first": (
        [(4, 2, 3, 3), (4, 1, 1)],
        lambda p, x, _: jnp.tanh(
            convolved(x, p[0], (1, 2), [(1, 0), (2, 1)], lhs_dilation=(2, 1)) + p[1]
        ),
        (2, 5, 6),
        ALL,
    ),
    "convolution in groups": (
        [(3, 3, 1, 4)],
        lambda p, x, _: convolved(x, p[0], (1, 1), "SAME", feature_group_count=2, **NHWC),
        (5, 5, 2),
        0,
    ),
    "dropout": (
        [(5, 4), (4,), (4, 4)],
        lambda p, x, key: left_out(key, jnp.tanh(x @ p[0] + p[1])) @ p[2],
        (5,),
        ALL,
    ),
    "dropout, used twice": (
        [(5, 5)],
        lambda p, x, key: left_out(key, jnp.tanh(x @ p[0])) @ p[0] + x @ p[0],
        (5,),
        0,
    ),
    "used twice": ([(5, 5), (5,)], lambda p, x, _: (x @ p[0] + p[1]) @ p[0].T, (5,), 1),
    "in a jitted function": (
        [(5, 4), (4,)],
        lambda p, x, _: jax.jit(lambda w, x: x @ w + p[1])(p[0], x),
        (5,),
        ALL,
    ),
    "in a loop": ([(5, 5), (5,)], scanned, (5,), 0),
    "rows and time on one axis": (
        [(5, 4), (4,)],
        lambda p, x, _: (x.reshape(-1, 5) @ p[0] + p[1]).reshape(len(x), -1),
        (3, 5),
        0,
    ),
    "not used": ([(5,), (3,)], lambda p, x, _: x * p[0], (5,), 1),
}


def losses_of(outputs: Any, target: Any) -> Any:
    return ((outputs.reshape(len(outputs), -1) - target[:, None]) ** 2).sum(1)


@pytest.mark.parametrize(
    ("name", "rows"), [*((name, ROWS) for name in CASES), ("dense", 1), ("used twice", 1)]
)
def test_norms_are_those_of_the_gradient_of_each_row_alone(name: str, rows: int) -> None:
    shapes, outputs, shape, num_taps = CASES[name]
    x, target = numbers(rows, *shape, dtype="float64"), numbers(rows, dtype="float64")
    parameters = [numbers(*it, name=n, dtype="float64") for n, it in enumerate(shapes)]
    with as_runs_compute(np.float64):
        key = jax.random.key(3) if "dropout" in name else None
        taps = taps_of(outputs, parameters, x, key)
        if rows > 1:
            assert len(taps) == (len(shapes) if num_taps == ALL else num_taps)

        def computed(parameters: Any) -> Any:
            block = Block(x, target, rows, key)
            return with_squared_norms(Functions(outputs, losses_of), parameters, block)

        found, norms = jax.jit(computed)(parameters)
        for row in range(rows):

            def loss(parameters: Any, row: int = row) -> Any:
                return losses_of(outputs(parameters, x, key), target)[row]

            own = jax.grad(loss)(parameters)
            expected = sum(float((it**2).sum()) for it in own)
            assert float(norms[row]) == pytest.approx(expected, rel=1e-6)
        summed = jax.grad(lambda it: losses_of(outputs(it, x, key), target).sum())(parameters)
        for gradient, expected in zip(found.gradients, summed, strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-10)
