"""GELU: exact, with its derivative, per-sample norms, and the same bits for any workers."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.autodiff import GradientTape, Variable, apply, assert_gradient
from distsgd.autodiff.ops.activations import Gelu
from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.nn import Activation, Convolution, Dense, Flatten, Layer, Network
from distsgd.parallel.launch.launch import train_in_process
from tests.integration.pools import server_spec, train_with_threads

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def plain(x: float) -> tuple[Decimal, Decimal]:
    """``x·Φ(x)`` and its derivative in 50 digits, by a series near 0 and a continued fraction."""
    with localcontext() as context:
        context.prec = 50
        size = Decimal(abs(x))
        bell = (-size * size / 2).exp() / (2 * PI).sqrt()
        if size < 4:
            term = total = size
            for n in range(1, 200):
                term = term * size * size / (2 * n + 1)
                total += term
            tail = Decimal("0.5") - bell * total
        else:
            fraction = size
            for n in range(400, 0, -1):
                fraction = size + n / fraction
            tail = bell / fraction
        share = tail if x < 0 else 1 - tail
        return Decimal(x) * share, share + Decimal(x) * bell


def gelu(x: Array) -> tuple[Array, Array]:
    variable = Variable(x)
    with GradientTape() as tape:
        y = apply(Gelu(), variable)
    gradient: Array = tape.gradient(y, variable)
    return y.value, gradient


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -13.1), (np.float64, -37.4)])
def test_gelu_and_its_derivative_are_within_4_ulp(dtype: Any, lowest: float) -> None:
    x = np.concatenate(
        [np.linspace(lowest, 15, 301), np.linspace(-2, 2, 101), 10.0 ** np.linspace(-30, 0, 20)]
    ).astype(dtype)
    ulp = float(np.finfo(dtype).eps)
    for at, value, slope in zip(x, *gelu(x), strict=True):
        wanted, wanted_slope = plain(float(at))
        assert abs(Decimal(float(value)) - wanted) <= 4 * Decimal(ulp) * abs(wanted), at
        near_zero_of_slope = -1.3 < at < -0.4
        against = Decimal(1) if near_zero_of_slope else abs(wanted_slope)
        assert abs(Decimal(float(slope)) - wanted_slope) <= 4 * Decimal(ulp) * against, at


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_is_that_of_the_error_function(dtype: Any) -> None:
    x = np.linspace(-5, 5, 1001).astype(dtype)
    wanted = [float(v) * 0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(gelu(x)[0], wanted, rtol=20 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_has_its_limits_far_out_and_lets_no_number_through(dtype: Any) -> None:
    x = np.array([np.inf, 1e30, 0.0, -0.0, -50, -1e30, -np.inf, np.nan], dtype)
    value, slope = gelu(x)
    assert value.dtype == slope.dtype == dtype
    np.testing.assert_array_equal(value, np.array([np.inf, 1e30, 0, 0, 0, 0, 0, np.nan], dtype))
    np.testing.assert_array_equal(slope, np.array([1, 1, 0.5, 0.5, 0, 0, 0, np.nan], dtype))


NETWORKS: list[tuple[list[Layer], tuple[int, ...]]] = [
    ([Dense(5, "gelu"), Activation("gelu"), Dense(3)], (4,)),
    ([Convolution(2, 2, activation="gelu"), Flatten(), Dense(3)], (4, 4, 1)),
]


def run(model: Network, flat: Array, x: Array, target: Array) -> tuple[float, Array, Array]:
    """Loss, gradient and squared norms of each sample."""
    gradients = np.empty_like(flat)
    bound = model.program(len(x), flat.dtype, per_sample=True).bind(
        np.ascontiguousarray(x), target, weights=flat, gradients=gradients
    )
    bound.forward()
    bound.backward()
    assert bound.squared_norms_N is not None
    return float(bound.losses_N.sum()), gradients, bound.squared_norms_N


@pytest.mark.parametrize(("layers", "input_shape"), NETWORKS)
def test_network_with_gelu_has_exact_gradients_and_norms(
    layers: list[Layer], input_shape: tuple[int, ...]
) -> None:
    model, chance = Network(layers, "softmax_cross_entropy", input_shape), np.random.default_rng(0)
    assert Network.from_dict(model.to_dict()) == model
    x, target = chance.standard_normal((4, *input_shape)), np.array([0, 2, 1, 2])
    flat = model.initialise("he", 1, np.float64)
    assert_gradient(lambda at: run(model, at, x, target)[:2], flat)
    norms = run(model, flat, x, target)[2]
    alone = [run(model, flat, x[n : n + 1], target[n : n + 1])[1] for n in range(4)]
    np.testing.assert_allclose(norms, [g @ g for g in alone], rtol=1e-12)


def test_run_with_gelu_has_one_digest_for_any_workers(
    digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    values: dict[str, Any] = digits.to_dict()
    values["model"]["layers"] = [
        {"type": "dense", "units": 16, "activation": "gelu"},
        {"type": "gelu"},
        {"type": "dense", "units": 10},
    ]
    config = TrainConfig.from_dict(values).with_overrides(
        ["train.steps=12", "train.epochs=9", "batch.size=64", "parallel.assignment=all"]
    )
    found = {}
    for workers in (0, 2):
        chosen = config.with_overrides([f"parallel.workers={workers}"])
        spec = server_spec(chosen, tmp_path / f"{workers}", cache_dir=cache_dir)
        worker = "distsgd_workers.gradient_worker:GradientWorker"
        outcome = (
            train_with_threads(spec) if workers else train_in_process(spec, worker, lambda _: False)
        )
        found[workers] = outcome.weights_digest
    assert found[0] == found[2]
