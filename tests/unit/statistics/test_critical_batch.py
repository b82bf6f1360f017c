"""Planted critical batch sizes.

SGD with batches of B on the quadratic ``½|θ|²`` of D weights, whose samples have the gradients
``θ + |θ| √(B_noise / D) z``, z being D standard normal numbers: ``tr Σ / |G|²`` is B_noise
everywhere. A step of ``κ / (1 + B_noise / B)``, κ times the best one (McCandlish 2018, equation
2.6), multiplies the expected loss by ``1 - q / (1 + B_noise / B)`` with ``q = 2κ - κ²``. So the
steps that divide the loss by R are ``log R / -log(1 - q / (1 + B_noise / B))``, which is
``log R (1/q - 1/2) (1 + B_crit / B)`` with ``B_crit = B_noise / (1 - q/2)`` and a relative error
below ``q²/12``: a hyperbola with a known critical batch size.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.errors import ConfigError
from distsgd.statistics import CriticalBatch, fit_critical_batch

Float64 = NDArray[np.float64]
NOISE_SCALE, KAPPA, NUM_WEIGHTS = 100.0, 0.1, 32
Q = 2 * KAPPA - KAPPA**2
CRITICAL = NOISE_SCALE / (1 - Q / 2)
SIZES: Float64 = np.asarray(NOISE_SCALE * 2.0 ** np.arange(-4, 4), np.float64)
LOG_RATIO = math.log(1000.0)
NUM_SEEDS, RUNS_A_SIZE = 600, 4
BATCH_N = np.repeat(SIZES, RUNS_A_SIZE)


def expected_steps(batch: Float64) -> Float64:
    steps: Float64 = LOG_RATIO / -np.log1p(-Q / (1 + NOISE_SCALE / batch))
    return steps


def trained_steps(batch: float, num_runs: int, *, start_noise: float) -> Float64:
    """Steps to the target of runs that start with losses of log-normal scatter `start_noise`."""
    chance = np.random.default_rng(int(batch * 1000))
    log_ratio = LOG_RATIO * np.exp(start_noise * chance.standard_normal(num_runs))
    goal = np.exp(-log_ratio)  # The loss starts at 1.
    theta = np.full((num_runs, NUM_WEIGHTS), NUM_WEIGHTS**-0.5)
    rate, steps = KAPPA / (1 + NOISE_SCALE / batch), np.zeros(num_runs)
    running = np.arange(num_runs)
    while len(running):
        size = np.sqrt(np.einsum("rd,rd->r", theta, theta))[:, None]
        noise = math.sqrt(NOISE_SCALE / NUM_WEIGHTS / batch) * size
        theta -= rate * (theta + noise * chance.standard_normal(theta.shape))
        steps[running] += 1
        left = np.einsum("rd,rd->r", theta, theta) > goal
        running, theta, goal = running[left], theta[left], goal[left]
    return steps


@pytest.fixture(scope="module")
def trained() -> Float64:
    """Steps ``[T, N]`` of T trials of SGD with every batch size; the starts scatter by 8 %."""
    columns = [
        trained_steps(batch, NUM_SEEDS * RUNS_A_SIZE, start_noise=0.08).reshape(NUM_SEEDS, -1)
        for batch in SIZES.tolist()
    ]
    return np.concatenate(columns, axis=1)


def evaluated(steps_N: Float64, every_N: Float64) -> tuple[Float64, Float64]:
    met_N = np.ceil(steps_N / every_N) * every_N
    return met_N - every_N, met_N


def coverage(fits: list[CriticalBatch]) -> float:
    return float(np.mean([fit.batch.low <= CRITICAL <= fit.batch.high for fit in fits]))


def every(parts: int) -> Float64:
    """Steps between evaluations: the expected steps in so many parts."""
    steps: Float64 = np.maximum(1.0, np.round(expected_steps(SIZES) / parts))
    return np.repeat(steps, RUNS_A_SIZE)


def test_planted_steps_follow_the_hyperbola_of_the_noise_scale(trained: Float64) -> None:
    exact = expected_steps(SIZES)
    hyperbola = LOG_RATIO * (1 / Q - 0.5) * (1 + CRITICAL / SIZES)
    assert np.allclose(exact, hyperbola, rtol=Q**2 / 12)
    # A run ends at the first whole step after; its logarithm scatters by 8 to 9 %.
    mean = np.exp(np.log(trained - 0.5).mean(axis=0)).reshape(len(SIZES), -1).mean(axis=1)
    assert np.allclose(mean, exact, rtol=5 * 0.09 / (NUM_SEEDS * RUNS_A_SIZE) ** 0.5)


def test_interval_holds_the_known_critical_batch_of_sgd(trained: Float64) -> None:
    fits = [fit_critical_batch(BATCH_N, *evaluated(row_N, every(20))) for row_N in trained]
    assert 0.93 <= coverage(fits) <= 0.97
    assert all(fit.is_bounded for fit in fits)
    assert np.median([fit.batch.mid for fit in fits]) == pytest.approx(CRITICAL, rel=0.02)


def test_interval_holds_it_where_half_the_smallest_batches_miss_the_target(
    trained: Float64,
) -> None:
    budget = float(np.median(trained[:, :RUNS_A_SIZE]))
    fits = []
    for row_N in trained[: NUM_SEEDS // 2]:
        missed_N, met_N = evaluated(row_N, every(40))
        last_N = np.floor(budget / every(40)) * every(40)
        is_late_N = met_N > budget
        fits.append(
            fit_critical_batch(
                BATCH_N,
                np.where(is_late_N, last_N, missed_N),
                np.where(is_late_N, np.inf, met_N),
            )
        )
    assert 0.93 <= coverage(fits) <= 0.97


def test_interval_of_ten_runs_holds_a_planted_critical_batch() -> None:
    chance = np.random.default_rng(3)
    batch_N, fits = np.repeat(SIZES[1:6], 2), []
    for _ in range(NUM_SEEDS // 2):
        steps_N = expected_steps(batch_N) * np.exp(0.1 * chance.standard_normal(len(batch_N)))
        fits.append(fit_critical_batch(batch_N, *evaluated(steps_N, np.ones(len(batch_N)))))
    assert 0.93 <= coverage(fits) <= 0.97


def test_critical_batch_above_the_largest_has_no_upper_end() -> None:
    steps_N = np.round(100 * 512 / BATCH_N * np.tile([0.97, 1.0, 1.02, 1.05], len(SIZES)))
    fit = fit_critical_batch(BATCH_N, steps_N - 1, steps_N)
    assert fit.batch.high == math.inf
    assert fit.batch.low == SIZES.max()
    assert not fit.is_bounded
    assert fit.samples(64.0) == pytest.approx(51_200, rel=0.03)


def test_critical_batch_below_the_smallest_has_no_lower_end() -> None:
    steps_N = np.tile([97.0, 100.0, 102.0, 105.0], len(SIZES))
    fit = fit_critical_batch(BATCH_N, steps_N - 1, steps_N)
    assert fit.batch.low == 0.0
    assert fit.batch.high == SIZES.min()
    assert not fit.is_bounded
    assert fit.steps(64.0) == pytest.approx(100, rel=0.03)


def test_runs_that_all_fall_into_cells_of_one_curve_give_an_interval_of_those_cells() -> None:
    steps_N = np.round(expected_steps(BATCH_N))
    fit = fit_critical_batch(BATCH_N, *evaluated(steps_N, every(10)))
    assert fit.is_bounded
    assert fit.batch.low < CRITICAL < fit.batch.high


def test_a_coarser_grid_of_evaluations_gives_a_wider_interval() -> None:
    chance = np.random.default_rng(5)
    steps_N = expected_steps(BATCH_N) * np.exp(0.02 * chance.standard_normal(len(BATCH_N)))
    fine, coarse = (
        fit_critical_batch(BATCH_N, *evaluated(steps_N, every(parts))).batch for parts in (100, 5)
    )
    assert math.log(coarse.high / coarse.low) > 2 * math.log(fine.high / fine.low)


def test_steps_and_samples_are_twice_the_fewest_at_the_critical_batch() -> None:
    steps_N = np.round(expected_steps(BATCH_N))
    fit = fit_critical_batch(BATCH_N, steps_N - 1, steps_N)
    assert fit.steps(fit.batch.mid) == pytest.approx(2 * fit.min_steps)
    assert fit.samples(fit.batch.mid) == pytest.approx(2 * fit.min_samples)


def test_a_target_met_at_the_first_evaluation_is_known_from_above_only() -> None:
    chance = np.random.default_rng(8)
    steps_N = np.ceil(expected_steps(BATCH_N) * np.exp(0.05 * chance.standard_normal(len(BATCH_N))))
    missed_N = np.where(np.isclose(BATCH_N, SIZES.max()), 0.0, steps_N - 1)
    fit = fit_critical_batch(BATCH_N, missed_N, steps_N)
    assert fit.batch.low < CRITICAL < fit.batch.high


@pytest.mark.parametrize(
    ("missed", "met", "found"),
    [
        ([85.0, 75.0, 100.0, 100.0], [90.0, 80.0, math.inf, math.inf], "2 runs of 1 batch sizes"),
        ([85.0, 75.0, 80.0, 100.0], [90.0, 80.0, 85.0, math.inf], ""),
        ([85.0, 75.0, 0.0, 0.0], [90.0, 80.0, 40.0, 40.0], "2 runs of 1 batch sizes"),
        ([100.0] * 4, [math.inf] * 4, "0 runs of 0 batch sizes"),
        ([0.0] * 4, [5.0] * 4, "0 runs of 0 batch sizes"),
    ],
)
def test_too_few_runs_that_missed_and_then_met_the_target_are_refused(
    missed: list[float], met: list[float], found: str
) -> None:
    batch_N, missed_N, met_N = np.array([32.0, 32.0, 64.0, 64.0]), np.array(missed), np.array(met)
    if not found:
        assert fit_critical_batch(batch_N, missed_N, met_N).min_steps > 0
        return
    with pytest.raises(ConfigError, match=f"{found} missed the target and then met it"):
        fit_critical_batch(batch_N, missed_N, met_N)
