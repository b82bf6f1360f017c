"""Plots of what runs recorded, for ``draw histories`` and ``show --plots``.

Imported by these when they run: numpy and matplotlib come with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distsgd.errors import RunError
from distsgd.lessons.pictures.histories import (
    SMOOTH_POINTS,
    Series,
    draw_regimes,
    draw_series,
    moving_mean,
)
from distsgd.store import EvaluationRow, RunDirectory, read_history

Float64 = NDArray[np.float64]


def draw_histories(runs: Sequence[Path], out: Path) -> None:
    """Draw the losses of several runs on one plot."""
    series: list[Series] = []
    for path in runs:
        run = RunDirectory.open(path)
        epoch, loss = _columns(run, "train_loss")
        label = _batch_label(run)
        if any(one.label == label for one in series):
            label = f"{label}, {path.name}"
        series.append(Series(label=label, epoch_S=epoch, value_S=loss))
    draw_regimes(series, out)


def draw_history(run: RunDirectory, evaluations: Sequence[EvaluationRow]) -> Iterator[Path]:
    """Draw loss, accuracy, gradient norm and noise scale of a run; yields each file written."""
    folder = run.path / "plots"
    loss = [*_smoothed(*_columns(run, "train_loss")), *_tested(evaluations, "test_loss")]
    accuracy = _tested(evaluations, "test_accuracy")
    norm = [*_smoothed(*_columns(run, "grad_norm"))]
    noise = [
        Series(label="noise scale", epoch_S=e, value_S=v) for e, v in _some(run, "noise_scale")
    ]
    for name, series, quantity, is_logarithmic in (
        ("loss", loss, "loss", True),
        ("accuracy", accuracy, "accuracy on held-out rows", False),
        ("gradient_norm", norm, "norm of the mean gradient", True),
        ("noise_scale", noise, "gradient noise scale (rows)", True),
    ):
        if series:
            file = folder / f"{name}.png"
            draw_series(series, file, quantity=quantity, is_logarithmic=is_logarithmic)
            yield file


def _some(run: RunDirectory, name: str) -> Iterator[tuple[Float64, Float64]]:
    table = read_history(run.history)
    epoch, values = (table[key].to_numpy().astype(np.float64) for key in ("epoch", name))
    finite = np.isfinite(values)
    if finite.any():
        yield epoch[finite], values[finite]


def _columns(run: RunDirectory, name: str) -> tuple[Float64, Float64]:
    """Epochs and finite values of a column. Raises RunError where there are none."""
    found = next(_some(run, name), None)
    if found is None:
        raise RunError(run.path, f"has no {name} in its history yet; train it first")
    return found


def _smoothed(epoch: Float64, values: Float64) -> Iterator[Series]:
    window = len(values) // SMOOTH_POINTS
    yield Series(label="each step", epoch_S=epoch, value_S=values)
    if window > 1:
        mean = moving_mean(values, window)
        label = f"mean of {window} steps"
        yield Series(label=label, epoch_S=epoch, value_S=mean, is_thick=True)


def _tested(evaluations: Sequence[EvaluationRow], name: str) -> list[Series]:
    rows = [(row.epoch, getattr(row, name)) for row in evaluations]
    known = [(epoch, value) for epoch, value in rows if value is not None and math.isfinite(value)]
    if not known:
        return []
    epoch, values = (np.array(column, np.float64) for column in zip(*known, strict=True))
    return [Series(label="held-out rows", epoch_S=epoch, value_S=values)]


def _batch_label(run: RunDirectory) -> str:
    size = run.read_json(run.config_path).get("batch", {}).get("size")
    if size == "full":
        return "whole batch"
    return "one sample (SGD)" if size == 1 else f"mini-batch of {size}"
