"""The loss over one weight, with the steps that training took on it.

Shape letters: G points of the grid, T steps and the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.lessons.pictures.canvas import COLOURS, FAINT, INK, new_axes, new_figure, save

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The loss over the weight while all else stays; `label` says when that was."""

    weight_G: Float64
    loss_G: Float64
    label: str = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Where the weight was, the loss there and its slope, from the start on."""

    weight_T: Float64
    loss_T: Float64
    slope_T: Float64


def draw_loss_curve(
    curves: Sequence[Curve], steps: Steps, out: Path, *, weight: str, loss: str = "loss"
) -> None:
    """Curves of the loss, the steps as arrows from point to point, the slope at first and last.

    Args:
        curves: The last is drawn strongest.
        steps: What training did; too many to tell apart are drawn without arrows.
        out: The file to write.
        weight: Name of the weight.
        loss: What the loss is.
    """
    figure = new_figure(6.4, 4.4)
    axes = new_axes(figure, x=weight, y=loss)
    for curve in curves:
        is_last = curve is curves[-1]
        axes.plot(
            curve.weight_G,
            curve.loss_G,
            color=COLOURS[0] if is_last else FAINT,
            linewidth=1.8 if is_last else 1.2,
            label=curve.label,
            zorder=2,
        )
    _draw_steps(axes, steps)
    _draw_slope(axes, steps, 0, label="slope at the start", style="--")
    if len(steps.weight_T) > 1:
        _draw_slope(axes, steps, -1, label="slope at the end", style=":")
    everything = np.concatenate([steps.loss_T, *(curve.loss_G for curve in curves)])
    everything = everything[np.isfinite(everything)]
    top = float(everything.max()) or 1.0
    axes.set_ylim(min(float(everything.min()), 0.0) - 0.05 * top, 1.08 * top)
    axes.set_xlim(curves[-1].weight_G[0], curves[-1].weight_G[-1])
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, out)


def _draw_steps(axes: Any, steps: Steps) -> None:
    colour, count = COLOURS[5], len(steps.weight_T) - 1
    axes.plot(
        steps.weight_T,
        steps.loss_T,
        "o",
        color=colour,
        markersize=3.5,
        zorder=4,
        label=f"{count} steps" if count != 1 else "1 step",
    )
    axes.plot(
        steps.weight_T[:1], steps.loss_T[:1], "o", color=INK, markersize=6, zorder=5, label="start"
    )
    if count > 40:
        axes.plot(steps.weight_T, steps.loss_T, color=colour, linewidth=0.6, zorder=3)
        return
    for step in range(count):
        tail = steps.weight_T[step], steps.loss_T[step]
        head = steps.weight_T[step + 1], steps.loss_T[step + 1]
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.0, "shrinkA": 2, "shrinkB": 2}
        axes.annotate("", xy=head, xytext=tail, arrowprops=style, zorder=3)


def _draw_slope(axes: Any, steps: Steps, step: int, *, label: str, style: str) -> None:
    """The tangent at a step, as long as a fifth of the picture is wide."""
    weight, loss, slope = steps.weight_T[step], steps.loss_T[step], steps.slope_T[step]
    reach = 0.12 * float(np.ptp(steps.weight_T) * 1.5 or 1.0)
    ends = np.array([weight - reach, weight + reach])
    axes.plot(
        ends,
        loss + slope * (ends - weight),
        color=INK,
        linewidth=1.4,
        linestyle=style,
        zorder=4,
        label=f"{label}: {slope:.3g}",
    )
