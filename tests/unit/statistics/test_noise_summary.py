from __future__ import annotations

import math

import numpy as np
import pytest

from distsgd.statistics import (
    late_noise_scale,
    nearest_batch,
    noise_scale_interval,
    noise_scales_by_batch,
)


def test_only_the_last_third_of_the_samples_counts() -> None:
    samples_S = np.linspace(100.0, 900.0, 9)
    assert late_noise_scale(samples_S, np.array([1e6] * 6 + [4.0, 5.0, 7.0])) == 5.0


def test_samples_are_what_is_cut_in_three_when_rows_are_uneven() -> None:
    samples_S = np.array([100.0, 200.0, 201.0, 202.0, 203.0, 900.0])
    assert late_noise_scale(samples_S, np.array([1.0, 2.0, 3.0, 4.0, 5.0, 60.0])) == 60.0


def test_moments_without_a_noise_scale_are_passed_over() -> None:
    samples_S = np.linspace(100.0, 900.0, 9)
    noise_S = np.array([1.0] * 5 + [9.0, math.nan, 8.0, math.inf])
    assert late_noise_scale(samples_S, noise_S) == 8.0
    assert late_noise_scale(samples_S, np.array([5.0] * 6 + [math.nan, 0.0, math.nan])) is None
    assert late_noise_scale(np.empty(0), np.empty(0)) is None


def test_interval_over_seeds_holds_a_planted_noise_scale() -> None:
    chance = np.random.default_rng(0)
    num_trials, covered = 1000, 0
    for _ in range(num_trials):
        scales = (200 * np.exp(0.2 * chance.standard_normal(4))).tolist()
        found = noise_scale_interval([None, *scales])
        assert found is not None
        covered += found.low <= 200 <= found.high
    assert abs(covered / num_trials - 0.95) < 5 * (0.95 * 0.05 / num_trials) ** 0.5


@pytest.mark.parametrize("scales", [[], [None, None], [80.0, None]])
def test_fewer_than_two_runs_have_no_interval(scales: list[float | None]) -> None:
    assert noise_scale_interval(scales) is None


def test_batch_sizes_have_scales_of_their_own_and_the_one_at_the_critical_batch_is_nearest() -> (
    None
):
    scales = {8: [180.0, 190.0], 64: [100.0, 110.0], 1438: [48.0, 52.0]}
    found = noise_scales_by_batch({**scales, 2: [7.0, None], 4: []})
    assert found == {batch: noise_scale_interval(some) for batch, some in scales.items()}
    assert [round(scale.mid) for scale in found.values()] == [185, 105, 50]
    nearest = {0.0: 8, 20.0: 8, 40.0: 64, 1e9: 1438, math.inf: 1438}
    assert all(nearest_batch(found, at) == batch for at, batch in nearest.items())
    assert nearest_batch(found, None) == 64
