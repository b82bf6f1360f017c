"""How training went: one picture for a quantity, of one run or of several.

Shape letters: S rows of a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.lessons.pictures.canvas import COLOURS, INK, new_axes, new_figure, save

Float64 = NDArray[np.float64]

SMOOTH_POINTS = 50  # A moving mean takes so many parts of all.
_MANY_TIMES = 30.0  # From this factor between the values on, their logarithm is drawn.


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Numbers over epochs; `is_thick` draws a line that must be seen over wiggling ones."""

    label: str
    epoch_S: Float64
    value_S: Float64
    is_thick: bool = False


def draw_regimes(series: Sequence[Series], out: Path) -> None:
    """The losses of runs with batches of different size in one picture: how each of them wiggles.

    Each step is drawn faintly, with a moving mean over it where there are many.

    Args:
        series: The loss of each step over epochs.
        out: The file to write.
    """
    figure = new_figure(7.2, 4.4)
    axes = new_axes(figure, x="epoch", y="loss of each step")
    means = [moving_mean(one.value_S, len(one.value_S) // SMOOTH_POINTS) for one in series]
    # What wiggles most is drawn first, so that it hides nothing.
    for place in sorted(range(len(series)), key=lambda i: -len(series[i].epoch_S)):
        one, colour = series[place], COLOURS[place % len(COLOURS)]
        axes.plot(one.epoch_S, one.value_S, color=colour, linewidth=0.6, alpha=0.35)
    for place, (one, mean_S) in enumerate(zip(series, means, strict=True)):
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(one.epoch_S, mean_S, color=colour, linewidth=2.0, label=one.label)
    _scale(axes, series)
    if axes.get_yscale() == "log":
        # A single sample's loss may be next to nothing, and the rest then a line at the top.
        everything = np.concatenate(means)
        axes.set_ylim(everything[everything > 0].min() / 20, everything.max() * 8)
    axes.legend(frameon=False)
    save(figure, out)


def draw_series(
    series: Sequence[Series], out: Path, *, quantity: str, is_logarithmic: bool = True
) -> None:
    """One quantity of a run over epochs.

    Args:
        series: Drawn in their order; a legend where there are two or more.
        out: The file to write.
        quantity: Name of the vertical axis.
        is_logarithmic: Whether equal factors may be equal distances.
    """
    figure = new_figure(6.4, 4.0)
    axes = new_axes(figure, x="epoch", y=quantity)
    for place, one in enumerate(series):
        is_short = len(one.epoch_S) <= 40
        axes.plot(
            one.epoch_S,
            one.value_S,
            color=INK if one.is_thick else COLOURS[place],
            linewidth=1.8 if one.is_thick or is_short else 0.8,
            marker="o" if is_short else None,
            markersize=3.5,
            label=one.label,
        )
    _scale(axes, series, is_logarithmic=is_logarithmic)
    if len(series) > 1:
        axes.legend(frameon=False)
    save(figure, out)


def moving_mean(values: Float64, window: int) -> Float64:
    """Mean of each value and its neighbours, about `window` in all where there are so many.

    >>> moving_mean(np.array([0.0, 3.0, 6.0]), 3)
    array([1.5, 3. , 4.5])
    """
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    place = np.arange(len(values))
    first = np.maximum(place - window // 2, 0)
    last = np.minimum(place + window // 2 + 1, len(values))
    mean: Float64 = (sums[last] - sums[first]) / (last - first)
    return mean


def _scale(axes: Any, series: Sequence[Series], *, is_logarithmic: bool = True) -> None:
    """Whole epochs; equal factors as equal distances where the values go over several."""
    values = np.concatenate([one.value_S for one in series])
    positive = values[values > 0]
    if is_logarithmic and len(positive) and positive.max() > _MANY_TIMES * positive.min():
        axes.set_yscale("log", nonpositive="clip")
    if max(one.epoch_S.max() for one in series) >= 4:
        axes.xaxis.get_major_locator().set_params(integer=True)
