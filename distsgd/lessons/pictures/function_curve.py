"""The curve of a function of one number, with its slope at some points.

Shape letters: G points of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsgd.errors import ModelError
from distsgd.lessons.pictures.canvas import COLOURS, INK, new_axes, new_figure, save

Float64 = NDArray[np.float64]

_REACH = 0.16  # A tangent goes so far to each side, in widths of the picture.


class Tangent(Protocol):
    """A point of the curve and the slope there, as `distsgd.autodiff.slope_at` gives it."""

    @property
    def point(self) -> Any:
        """Where: one number."""

    @property
    def value(self) -> Any:
        """The function's."""

    @property
    def gradient(self) -> Any:
        """The slope."""


def draw_curve(
    function: Callable[[Any], Any],
    low: float,
    high: float,
    out: Path | str,
    *,
    tangents: Tangent | Sequence[Tangent] = (),
    labels: tuple[str, str] = ("x", "f(x)"),
    y_range: tuple[float, float] | None = None,
    num_points: int = 401,
) -> None:
    """Draw a function from `low` to `high`, and the straight lines that touch it.

    Where the function has no finite value, or answers as Python's `math` does outside of a domain
    (ValueError, ArithmeticError), the curve has a gap.

        draw_curve(lambda x: x**2, -3, 3, "square.png", tangents=[slope_at(lambda x: x**2, 1.0)])

    Args:
        function: From a float64 to one number; a Variable is one, too.
        low: The left end.
        high: The right end; above `low`.
        out: The file to write: .png, .svg or .pdf.
        tangents: What `distsgd.autodiff.slope_at` said at a point of it, or at several; each is
            drawn as a point and a line with its slope.
        labels: Names of the two axes.
        y_range: Lowest and highest value of the picture, as near a pole; all of them unless given.
        num_points: How many points are computed, 2 or more, evenly apart.

    Raises:
        ModelError: The ends or the number of points are none, the function gives no single number
            or nowhere a finite one, or a tangent is not at one point.
        DataError: The file's name says no known format, or it cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if not callable(function):
        raise ModelError(f"the function is {function!r}; must be callable (write lambda x: ...)")
    x_G, y_G = _sampled(function, low, high, num_points)
    several = tangents if isinstance(tangents, Sequence) else [tangents]
    lines = [_numbers(tangent) for tangent in several]
    bottom, top = _height(y_G, [value for _, value, _ in lines], y_range)
    figure = new_figure(6.4, 4.4)
    axes = new_axes(figure, x=labels[0], y=labels[1])
    axes.plot(x_G, y_G, color=COLOURS[0], linewidth=1.8, zorder=2)
    axes.set_xlim(x_G[0], x_G[-1])
    axes.set_ylim(bottom, top)
    for place, line in enumerate(lines):
        colour = COLOURS[1:][place % (len(COLOURS) - 1)]
        _draw_tangent(axes, *line, size=(x_G[-1] - x_G[0], top - bottom), colour=colour)
    if lines:
        figure.legend(loc="outside lower center", ncols=min(len(lines), 3), frameon=False)
    save(figure, Path(out))


def _draw_tangent(
    axes: Any, point: float, value: float, slope: float, *, size: tuple[float, float], colour: str
) -> None:
    """A point of the curve and the line that touches it there, on a picture of this size."""
    reach = _reach(slope, *size)
    ends = np.array([point - reach, point + reach])
    label = f"slope {slope:.3g} at {point:.3g}"
    axes.plot(
        ends, value + slope * (ends - point), color=colour, linewidth=1.6, label=label, zorder=3
    )
    axes.plot([point], [value], "o", color=INK, markersize=4.5, zorder=4)


def _sampled(
    function: Callable[[Any], Any], low: float, high: float, num_points: int
) -> tuple[Float64, Float64]:
    """The grid, and the function on it; not-a-number where it is not finite."""
    low, high = (_finite("an end of the curve", end) for end in (low, high))
    if low >= high:
        raise ModelError(f"the curve goes from {low:g} to {high:g}; must go to a larger number")
    if not isinstance(num_points, int) or num_points < 2:
        raise ModelError(f"num_points is {num_points!r}; must be a whole number, 2 or more")
    x_G, y_G = np.linspace(low, high, num_points), np.full(num_points, np.nan)
    refusal: Exception | None = None
    # Outside of its domain a function may say nothing, and a pole is no fault.
    with np.errstate(all="ignore"):
        for place, x in enumerate(x_G):
            try:
                answer = function(x)
            except (ArithmeticError, ValueError) as error:
                refusal = error
            else:
                y_G[place] = _one_number("the function", answer)
    y_G[~np.isfinite(y_G)] = np.nan
    if np.isnan(y_G).all():
        why = "" if refusal is None else f" ({type(refusal).__name__}: {refusal})"
        raise ModelError(
            f"the function is nowhere finite from {low:g} to {high:g}{why}; must be at some point "
            "(draw it elsewhere)"
        )
    return x_G, y_G


def _height(
    y_G: Float64, values: Sequence[float], y_range: tuple[float, float] | None
) -> tuple[float, float]:
    """Lowest and highest of the picture: curve and points say it; steep lines leave it."""
    if y_range is not None:
        if not isinstance(y_range, Sequence) or len(y_range) != 2:
            raise ModelError(f"y_range is {y_range!r}; must be two numbers: lowest and highest")
        bottom, top = (_finite("an end of y_range", end) for end in y_range)
        if bottom >= top:
            raise ModelError(f"y_range is {y_range}; must go from a number to a larger one")
        return bottom, top
    bottom = min([float(np.nanmin(y_G)), *values])
    top = max([float(np.nanmax(y_G)), *values])
    margin = 0.06 * ((top - bottom) or abs(top) or 1.0)
    return bottom - margin, top + margin


def _numbers(tangent: Tangent) -> tuple[float, float, float]:
    if not all(hasattr(tangent, name) for name in ("point", "value", "gradient")):
        raise ModelError(f"a tangent is {tangent!r}; must be what slope_at gave")
    point = _finite("the point of a tangent", tangent.point)
    value = _finite("the value of a tangent", tangent.value)
    return point, value, _finite("the slope of a tangent", tangent.gradient)


def _finite(what: str, given: Any) -> float:
    number = _one_number(what, given)
    if not math.isfinite(number):
        raise ModelError(f"{what} is {number}; must be a finite number")
    return number


def _one_number(what: str, given: Any) -> float:
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ModelError(f"{what} is {given!r}; must be one number") from None
    if array.size != 1:
        raise ModelError(f"{what} has shape {array.shape}; must be one number (sum it)")
    return float(array.reshape(()))


def _reach(slope: float, width: float, height: float) -> float:
    """Half of a line's extent along x, so that all lines look equally long."""
    return _REACH * width / math.hypot(1.0, slope * width / height)
