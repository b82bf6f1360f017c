import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.errors import CheckpointError
from distsgd.statistics import NoiseScale, trace, unbiased_square


def statistics_of(per_sample_grads: NDArray[np.float64]) -> tuple[int, float, float]:
    batch = len(per_sample_grads)
    mean_squared_norm = math.fsum(float(g @ g) for g in per_sample_grads) / batch
    mean = per_sample_grads.mean(axis=0)
    return batch, mean_squared_norm, float(mean @ mean)


def per_sample_grads(seed: int, batch: int, size: int = 5) -> NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    return chance.standard_normal((batch, size)) * 2.0 + np.arange(size)


@given(seed=st.integers(0, 10_000), batch=st.integers(2, 40))
def test_trace_is_that_of_the_sample_covariance(seed: int, batch: int) -> None:
    grads = per_sample_grads(seed, batch)
    covariance = np.cov(grads, rowvar=False, ddof=1)
    assert trace(*statistics_of(grads)) == pytest.approx(float(np.trace(covariance)), rel=1e-9)


@given(seed=st.integers(0, 10_000), batch=st.integers(2, 12))
def test_unbiased_square_is_the_mean_product_of_two_different_samples(
    seed: int, batch: int
) -> None:
    grads = per_sample_grads(seed, batch)
    products = [float(grads[i] @ grads[j]) for i in range(batch) for j in range(batch) if i != j]
    expected = math.fsum(products) / len(products)
    assert unbiased_square(*statistics_of(grads)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("batch", [2, 8, 64])
def test_noise_scale_finds_that_of_a_known_gaussian(batch: int) -> None:
    chance = np.random.default_rng(1)
    mean, deviation = np.array([1.0, -2.0, 0.5]), np.array([1.0, 3.0, 0.2])
    exact = float(np.sum(deviation**2) / np.sum(mean**2))
    noise = NoiseScale(decay=0.9999)
    for _ in range(20_000):
        noise.update(*statistics_of(mean + deviation * chance.standard_normal((batch, 3))))
    assert noise.value is not None
    # The average weighs about 15,000 mini-batches. Of two samples each, one gives |G|² with a
    # relative deviation of 2.4 and tr Σ with 1.3: 2.2 % in the end; of eight, 0.8 %.
    assert noise.value == pytest.approx(exact, rel=0.1 if batch == 2 else 0.03)


def test_noise_scale_is_the_ratio_of_two_bias_corrected_averages() -> None:
    batches = [statistics_of(per_sample_grads(seed, 4 + seed)) for seed in range(6)]
    noise = NoiseScale(decay=0.8)
    for number, (batch, mean_squared, squared_mean) in enumerate(batches, 1):
        noise.update(batch, mean_squared, squared_mean)
        weights = [0.8 ** (number - 1 - i) for i in range(number)]
        pairs = list(zip(weights, batches[:number], strict=True))
        square = sum(w * unbiased_square(*b) for w, b in pairs) / sum(weights)
        spread = sum(w * trace(*b) for w, b in pairs) / sum(weights)
        assert noise.square == pytest.approx(square, rel=1e-12)
        assert noise.trace == pytest.approx(spread, rel=1e-12)
        assert noise.value == pytest.approx(spread / square, rel=1e-12)


def test_noise_scale_is_undefined_while_batches_hold_one_sample() -> None:
    noise = NoiseScale()
    assert noise.value is noise.square is noise.trace is None
    noise.update(1, 4.0, 4.0)
    assert noise.value is noise.square is noise.trace is None
    noise.update(2, 4.0, 3.0)
    before = noise.value
    noise.update(1, 4.0, 4.0)
    assert noise.value == before == 1.0


def test_noise_scale_is_undefined_where_noise_hides_the_gradient() -> None:
    noise = NoiseScale()
    noise.update(2, 4.0, 1.0)
    assert noise.square == pytest.approx(-2.0)
    assert noise.trace == pytest.approx(6.0)
    assert noise.value is None


def test_noise_scale_of_equal_samples_is_zero() -> None:
    noise = NoiseScale()
    noise.update(3, 4.0, 4.0)
    assert noise.value == 0.0


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_noise_scale_passes_over_norms_that_are_not_finite(bad: float) -> None:
    noise = NoiseScale()
    noise.update(4, 10.0, 4.0)
    before = noise.state_dict()
    noise.update(4, bad, 4.0)
    noise.update(4, bad, bad)
    assert noise.state_dict() == before


def test_noise_scale_goes_on_from_a_checkpoint_with_the_same_bits() -> None:
    noise = NoiseScale(decay=0.7)
    for seed in range(5):
        noise.update(*statistics_of(per_sample_grads(seed, 8)))
    restored = NoiseScale.from_state(json.loads(json.dumps(noise.state_dict())))
    for each in (noise, restored):
        each.update(*statistics_of(per_sample_grads(9, 8)))
    assert restored.state_dict() == noise.state_dict()
    assert restored.value == noise.value


@pytest.mark.parametrize(
    "change", [{"decay": 1.0}, {"decay": "0.9"}, {"weight": None}, {"trace_sum": math.nan}]
)
def test_noise_scale_refuses_a_damaged_state(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"{next(iter(change))} is .*; must be"):
        NoiseScale.from_state(NoiseScale().state_dict() | change)
