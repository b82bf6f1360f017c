from __future__ import annotations

import numpy as np
import pytest

from distsgd.statistics.student import student_quantile


@pytest.mark.parametrize(
    ("level", "degrees", "quantile"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.30265),
        (0.95, 5, 2.57058),
        (0.95, 30, 2.04227),
        (0.95, 120, 1.97993),
        (0.99, 4, 4.60409),
        (0.5, 3, 0.76489),
        (0.9, 15, 1.75305),
    ],
)
def test_quantile_is_that_of_the_tables(level: float, degrees: int, quantile: float) -> None:
    assert student_quantile(level, degrees) == pytest.approx(quantile, rel=2e-5)


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 9])
def test_quantile_encloses_its_part_of_the_integrated_density(degrees: int) -> None:
    end = student_quantile(0.8, degrees)
    t = np.linspace(-end, end, 20_001)
    density = (1 + t**2 / degrees) ** (-(degrees + 1) / 2)
    # The whole, by the angle t = √degrees · tan(angle), which makes it finite.
    angle = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    whole = np.sqrt(degrees) * np.trapezoid(np.cos(angle) ** (degrees - 1), angle)
    assert np.trapezoid(density, t) / whole == pytest.approx(0.8, rel=1e-6)
