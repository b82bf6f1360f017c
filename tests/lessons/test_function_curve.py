"""The curve of a function, with the slope that the tape gives at some of its points."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from distsgd.autodiff import Variable, log
from distsgd.lessons import slope_at
from distsgd.lessons.pictures import draw_curve

pytest.importorskip("matplotlib", reason="needs the extra 'plots'")


def bumpy(x: Variable) -> Variable:
    return x**4 - 3.0 * x**2 + x


def test_curve_is_drawn_with_the_slopes_of_the_tape(tmp_path: Path) -> None:
    slopes = [slope_at(bumpy, point) for point in (-1.3, 0.0, 1.0)]
    assert [round(float(slope.gradient), 3) for slope in slopes] == [0.012, 1.0, -1.0]
    draw_curve(bumpy, -2, 2, tmp_path / "curve.svg", tangents=slopes)
    text = (tmp_path / "curve.svg").read_text()
    assert "slope 1 at 0" in text
    assert "slope -1 at 1" in text


def test_curve_of_a_gate_has_a_gap_outside_of_its_domain(tmp_path: Path) -> None:
    draw_curve(log, -1, 4, tmp_path / "curve.png", tangents=[slope_at(log, 1.0)])
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_curve_of_a_function_of_math_has_gaps_too_and_takes_a_single_slope(tmp_path: Path) -> None:
    for place, function in enumerate((math.log, lambda x: 1 / int(x), lambda x: math.exp(400 * x))):
        slope = slope_at(lambda x: x - 1.0, 1.0)
        draw_curve(function, -1, 4, tmp_path / f"{place}.svg", tangents=slope)
        assert "slope 1 at 1" in (tmp_path / f"{place}.svg").read_text()
