"""The error over each weight as a curve, with the point, its slope and the steps taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distsgd.errors import ConfigError
from distsgd.lessons.inspect import LossOverWeight, loss_over_weight
from tests.lessons.linear_network import Float64, trained


def curve(
    run: Path, start: list[float], x: list[float], goal: float, *, rate: float, steps: int
) -> LossOverWeight:
    """The curve over the first weight of a network trained on one row."""
    row = np.array([x]), np.array([goal])
    trained(*row, np.array(start), run, rate=rate, steps=steps)
    return loss_over_weight(run, "layers.0.weight[0]", max_steps=30)


def pure_errors(found: LossOverWeight) -> list[float]:
    """ε²: the cost is its half."""
    return [2.0 * error for error in found.loss_T.tolist()]


def test_four_steps_down_one_weight_are_those_of_the_tutorial(tmp_path: Path) -> None:
    found = curve(tmp_path / "run", [0.0], [1.1], 0.8, rate=1.0, steps=4)
    assert pure_errors(found)[:4] == pytest.approx(
        [0.64, 0.028224, 0.0012446784, 5.489e-05], rel=1e-4
    )
    assert found.weight_T[:4].tolist() == pytest.approx([0.0, 0.88, 0.6952, 0.734008])
    # The slope is the input times delta: -0.8 · 1.1, and so on.
    deltas = found.slope_T[:4]
    assert deltas.tolist() == pytest.approx([-0.88, 0.1848, -0.038808, 0.00814968])


def test_every_step_goes_down_its_slope(tmp_path: Path) -> None:
    found = curve(tmp_path / "run", [0.5], [2.0], 0.8, rate=0.1, steps=20)
    moved = np.diff(found.weight_T)
    assert np.allclose(moved, -0.1 * found.slope_T[:-1])
    assert pure_errors(found)[:3] == pytest.approx([0.04, 0.0144, 0.005184])
    assert pure_errors(found)[19] == pytest.approx(1.485277e-10, rel=1e-6)


def test_an_overshoot_jumps_from_side_to_side_and_up(tmp_path: Path) -> None:
    found = curve(tmp_path / "run", [0.5], [2.0], 0.8, rate=1.0, steps=4)
    assert pure_errors(found)[:4] == pytest.approx([0.04, 0.36, 3.24, 29.16])
    best = 0.4
    sides = np.sign(found.weight_T - best)
    assert (sides[1:] == -sides[:-1]).all()
    assert found.grid_G[0] < found.weight_T.min()
    assert found.weight_T.max() < found.grid_G[-1]


def test_the_points_lie_on_the_curve_and_the_slope_touches_it(tmp_path: Path) -> None:
    found = curve(tmp_path / "run", [0.0], [1.1], 0.8, rate=1.0, steps=4)
    assert np.allclose(found.first_loss_G, found.last_loss_G)  # There is no other weight.
    assert np.allclose(found.first_loss_G, 0.5 * (1.1 * found.grid_G - 0.8) ** 2)
    differences: Float64 = np.gradient(found.first_loss_G, found.grid_G)
    between = np.interp(found.weight_T, found.grid_G, differences)
    assert np.allclose(between, found.slope_T)  # Exact: the curve is a parabola.


def test_other_weights_move_the_curve(tmp_path: Path) -> None:
    inputs, start = [8.5, 0.65, 1.2], [0.1, 0.2, -0.1]
    found = curve(tmp_path / "run", start, inputs, 1.0, rate=0.01, steps=6)
    rest = 0.2 * 0.65 - 0.1 * 1.2
    assert np.allclose(found.first_loss_G, 0.5 * (8.5 * found.grid_G + rest - 1.0) ** 2)
    assert not np.allclose(found.first_loss_G, found.last_loss_G)
    assert pure_errors(found)[0] == pytest.approx(0.0196)


def test_a_weight_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(np.ones((1, 2)), np.ones(1), np.zeros(2), run, rate=0.1, steps=1)
    for weight in ("layers.0.weight", "layers.1.weight[0]", "layers.0.weight[2]", "w[a]"):
        with pytest.raises(ConfigError, match=r"layers\.0\.weight"):
            loss_over_weight(run, weight, max_steps=1)
    last = loss_over_weight(run, "layers.0.weight[1,0]", max_steps=1)
    assert np.array_equal(
        last.weight_T, loss_over_weight(run, "layers.0.weight[1]", max_steps=1).weight_T
    )
