from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.statistics.censored import _upper_tail, fit_censored

Float64 = NDArray[np.float64]


def log_likelihood(low_N: Float64, high_N: Float64, location: float, scale: float) -> float:
    """One value after the other, by the standard library's erf."""

    def phi(end: float) -> float:
        return (1 + math.erf((end - location) / scale / math.sqrt(2))) / 2

    ends = zip(low_N.tolist(), high_N.tolist(), strict=True)
    return math.fsum(math.log(phi(high) - phi(low)) for low, high in ends)


def test_upper_tail_has_twelve_digits_over_its_whole_range() -> None:
    z = np.linspace(0.0, 37.0, 3701)
    exact = np.array([math.erfc(one / math.sqrt(2)) / 2 for one in z])
    assert np.allclose(_upper_tail(z), exact, rtol=1e-12, atol=0.0)


def test_fit_of_narrow_intervals_is_the_mean_and_the_deviation() -> None:
    y_N = np.array([0.3, 0.9, 1.1, 2.2])
    fit = fit_censored(y_N - 1e-4, y_N + 1e-4, np.zeros((1, 4)))
    assert fit.location_C[0] == pytest.approx(y_N.mean(), abs=1e-6)
    assert fit.scale_C[0] == pytest.approx(y_N.std(), rel=1e-4)


@pytest.mark.parametrize("case", ["wide", "open above", "open below"])
def test_fit_is_higher_than_everything_around_it(case: str) -> None:
    chance = np.random.default_rng(1)
    y_N = 2.0 + 0.5 * chance.standard_normal(12)
    low_N, high_N = np.floor(y_N * 2) / 2, np.floor(y_N * 2) / 2 + 0.5
    if case == "open above":
        high_N[:4] = np.inf
    if case == "open below":
        low_N[:3] = -np.inf
    fit = fit_censored(low_N, high_N, np.zeros((1, 12)))
    location, scale = float(fit.location_C[0]), float(fit.scale_C[0])
    best = log_likelihood(low_N, high_N, location, scale)
    assert fit.log_likelihood_C[0] == pytest.approx(best, abs=1e-4)
    for shift, factor in ((0.01, 1.0), (-0.01, 1.0), (0.0, 1.02), (0.0, 0.98)):
        assert log_likelihood(low_N, high_N, location + shift, scale * factor) < best


def test_candidates_are_fitted_as_if_alone() -> None:
    chance = np.random.default_rng(2)
    y_N, offset_CN = chance.standard_normal(9), 3 * chance.standard_normal((5, 9))
    together = fit_censored(y_N - 0.1, y_N + 0.1, offset_CN)
    for c in range(5):
        alone = fit_censored(y_N - 0.1, y_N + 0.1, offset_CN[c : c + 1])
        assert together.location_C[c] == pytest.approx(alone.location_C[0], abs=1e-5)
        assert together.log_likelihood_C[c] == pytest.approx(alone.log_likelihood_C[0], abs=1e-8)


def test_values_of_one_cell_have_a_small_scale_and_a_location_in_the_cell() -> None:
    fit = fit_censored(np.full(6, 1.0), np.full(6, 1.2), np.zeros((1, 6)))
    assert 1.0 < fit.location_C[0] < 1.2
    assert 0.0 < fit.scale_C[0] < 0.05
    assert fit.log_likelihood_C[0] == pytest.approx(0.0, abs=1e-2)


def test_candidates_far_off_have_finite_likelihoods() -> None:
    y_N = np.linspace(0.0, 1.0, 8)
    offset_CN = np.stack([np.linspace(0.0, 200.0, 8), np.linspace(0.0, -1e4, 8)])
    fit = fit_censored(y_N, y_N + 0.01, offset_CN)
    assert np.isfinite(fit.log_likelihood_C).all()
    assert np.all(fit.scale_C > 1.0)
