"""Pictures are read back as pixels: what must be bright, dark or coloured is."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.errors import DataError, MissingExtraError, ModelError
from distsgd.lessons.pictures import draw_curve
from distsgd.lessons.pictures.canvas import COLOURS
from distsgd.lessons.pictures.histories import Series, draw_regimes, draw_series, moving_mean
from distsgd.lessons.pictures.images import MAX_IMAGES, draw_images, draw_input_gradients
from distsgd.lessons.pictures.loss_curve import Curve, Steps, draw_loss_curve

pytest.importorskip("matplotlib", reason="needs the extra 'plots'")


def pixels(path: Path) -> NDArray[Any]:
    """RGB from 0 to 1, ``[H, W, 3]``."""
    from matplotlib.image import imread

    found: NDArray[Any] = imread(path)[:, :, :3]
    return found


def share_of(path: Path, colour: str) -> float:
    """Share of the pixels of a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(pixels(path) - wanted) < 0.02).all(axis=2).mean())


def test_bright_is_high_and_dark_is_negative(tmp_path: Path) -> None:
    high, low, zero = np.ones((3, 4, 4)), -np.ones((3, 4, 4)), np.zeros((3, 4, 4))
    middle = np.stack([high[0], low[0], zero[0]])
    draw_images(middle, tmp_path / "a.png", titles="abc", is_signed=True)
    image = pixels(tmp_path / "a.png")
    row = image[image.shape[0] // 2 :, :, 0]
    shades = {round(float(shade), 1) for shade in np.unique(row)}
    assert {0.0, 0.5, 1.0} <= shades


@pytest.mark.parametrize("count", [1, 5, 7, 11, MAX_IMAGES])
def test_any_number_of_images_is_drawn(tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(0).random((count, 3, 5))
    draw_images(images, tmp_path / "a.png", titles=[str(i) for i in range(count)], title="all")
    assert pixels(tmp_path / "a.png").std() > 0


@pytest.mark.parametrize("count", [1, 10, 13])
def test_gradients_are_drawn_below_their_inputs(tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(0).random((count, 4, 4))
    draw_input_gradients(images, images - 0.5, tmp_path / "a.png", titles=["x"] * count)
    assert pixels(tmp_path / "a.png").std() > 0


def test_images_without_any_contrast_are_drawn(tmp_path: Path) -> None:
    zeros = np.zeros((3, 4, 4))
    draw_images(zeros, tmp_path / "a.png", is_signed=True)
    draw_input_gradients(zeros, zeros, tmp_path / "b.png")
    assert (tmp_path / "b.png").is_file()


def parabola(steps: list[float]) -> tuple[list[Curve], Steps]:
    grid_G, weight_T = np.linspace(-3, 3, 61), np.array(steps)
    curve = Curve(weight_G=grid_G, loss_G=grid_G**2)
    return [curve], Steps(weight_T=weight_T, loss_T=weight_T**2, slope_T=2 * weight_T)


@pytest.mark.parametrize("steps", [[2.0], [2.0, -1.0, 0.5], [2.0] * 60])
def test_an_error_curve_shows_the_curve_and_the_steps(tmp_path: Path, steps: list[float]) -> None:
    curves, path = parabola(steps)
    draw_loss_curve(curves, path, tmp_path / "a.png", weight="w")
    assert share_of(tmp_path / "a.png", COLOURS[0]) > 0.002
    if len(set(steps)) > 1:
        assert share_of(tmp_path / "a.png", COLOURS[5]) > 0.0005


def test_regimes_are_told_apart(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    series = [
        Series(label=f"batch {count}", epoch_S=np.linspace(0, 5, count), value_S=values)
        for count in (1000, 100, 5)
        for values in [np.exp(-np.linspace(0, 3, count)) + chance.random(count) * count / 1000]
    ]
    draw_regimes(series, tmp_path / "a.png")
    for colour in COLOURS[:3]:
        assert share_of(tmp_path / "a.png", colour) > 0.001


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_point_and_no_contrast_are_drawn(tmp_path: Path, value: float) -> None:
    one = Series(label="one", epoch_S=np.ones(1), value_S=np.full(1, value))
    draw_series([one], tmp_path / "a.png", quantity="loss")
    draw_regimes([one], tmp_path / "b.png")
    assert (tmp_path / "b.png").is_file()


def test_a_moving_mean_of_one_is_the_values() -> None:
    values = np.arange(5.0)
    assert np.array_equal(moving_mean(values, 0), values)
    assert np.array_equal(moving_mean(values, 1), values)
    assert moving_mean(values, 100) == pytest.approx(np.full(5, 2.0))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_picture_has_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    curves, path = parabola([2.0, -1.0])
    for name in "ab":
        draw_loss_curve(curves, path, tmp_path / f"{name}{suffix}", weight="w")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["a", "a.jpeg", "file/a.png"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"says no format|cannot be written"):
        draw_images(np.zeros((1, 2, 2)), tmp_path / name)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[plots\]'"):
        draw_images(np.zeros((1, 2, 2)), Path("a.png"))


def test_the_pictures_load_matplotlib_only_when_one_is_drawn() -> None:
    code = "import sys, distsgd.cli.draw, distsgd.cli.plots;sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@dataclass(frozen=True)
class Touching:
    point: Any
    value: Any
    gradient: Any


def test_curve_is_drawn_with_a_line_for_each_slope(tmp_path: Path) -> None:
    bare, touched = tmp_path / "bare.png", tmp_path / "touched.png"
    draw_curve(np.square, -2, 3, bare)
    tangents = [Touching(1.0, 1.0, 2.0), Touching(np.array([-1.0]), 1.0, np.array([-2.0]))]
    draw_curve(np.square, -2, 3, str(touched), tangents=tangents, labels=("w", "error"))
    for colour, is_there in ((COLOURS[1], True), (COLOURS[2], True), (COLOURS[3], False)):
        assert share_of(bare, colour) == 0
        assert (share_of(touched, colour) > 0) is is_there
    assert share_of(bare, COLOURS[0]) > 0.003


@pytest.mark.parametrize(
    ("function", "ends", "y_range"),
    [
        (np.log, (-1, 4), None),
        (lambda x: 1 / x, (-2, 2), (-5, 5)),
        (lambda _: 7.0, (0, 1), None),
        (lambda _: 0.0, (-1e-9, 1e-9), None),
        (np.exp, (0, 1000), (0, 10)),
    ],
)
def test_curves_with_gaps_poles_and_no_height_are_drawn(
    tmp_path: Path, function: Any, ends: tuple[float, float], y_range: Any
) -> None:
    low, high = ends
    draw_curve(function, low, high, tmp_path / "a.png", y_range=y_range)
    assert share_of(tmp_path / "a.png", COLOURS[0]) > 0.001


def test_curve_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_curve(np.sin, 0, 6, tmp_path / name, tangents=[Touching(0.0, 0.0, 1.0)])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("function", "ends", "more", "says"),
    [
        (np.sin, (1, 1), {}, "goes from 1 to 1; must go to a larger"),
        (np.sin, (0, np.inf), {}, "an end of the curve is inf"),
        (np.sin, ("left", 1), {}, "'left'; must be one number"),
        (np.sin, (0, 1), {"num_points": 1}, "num_points is 1"),
        (np.sin, (0, 1), {"num_points": 2.5}, "num_points is 2.5; must be a whole number"),
        (np.sin, (0, 1), {"y_range": 3.0}, "y_range is 3.0; must be two numbers"),
        (math.sqrt, (-2, -1), {}, r"nowhere finite from -2 to -1 \(ValueError: math domain error"),
        (3.0, (0, 1), {}, "the function is 3.0; must be callable"),
        (np.sin, (0, 1), {"tangents": [0.5]}, "a tangent is 0.5; must be what slope_at gave"),
        (np.sin, (0, 1), {"y_range": (2, 1)}, "y_range is .2, 1."),
        (lambda x: x * np.nan, (0, 1), {}, "nowhere finite from 0 to 1"),
        (lambda x: np.array([x, x]), (0, 1), {}, r"the function has shape \(2,\)"),
        (lambda _: "high", (0, 1), {}, "'high'; must be one number"),
        (np.sin, (0, 1), {"tangents": [Touching([0.0, 1.0], 0.0, 1.0)]}, "point of a tangent has"),
        (np.sin, (0, 1), {"tangents": [Touching(0.0, 0.0, np.nan)]}, "slope of a tangent is nan"),
    ],
)
def test_curve_refuses_what_it_cannot_draw(
    tmp_path: Path, function: Any, ends: Any, more: Any, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        draw_curve(function, ends[0], ends[1], tmp_path / "a.png", **more)
    assert not list(tmp_path.iterdir())
