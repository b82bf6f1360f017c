"""The pictures of a comparison: test metric and training loss over samples and seconds. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from distsgd.experiments.compare import Comparison
from distsgd.experiments.compared_run import ComparedRun
from distsgd.experiments.report import words
from distsgd.experiments.report.chart import IDEAL, MISSING, Axis, Chart, log_axis, series_style
from distsgd.experiments.report.pictures.loss import short_count, thinned
from distsgd.experiments.report.pictures.picture import Panel, Picture
from distsgd.experiments.report.pictures.to_target import short_seconds
from distsgd.experiments.report.scale import Scale
from distsgd.parallel.server.target import Target

_MARGIN = 0.06
_AXES: dict[str, tuple[str, Callable[[float], str]]] = {
    "samples": ("samples seen", short_count),
    "seconds": ("time spent training", short_seconds),
}


@dataclass(frozen=True, slots=True)
class _Curves:
    """One panel: `quantity` of some of the runs over `over`, "samples" or "seconds"."""

    quantity: str
    over: str
    labels: tuple[str, ...]
    machine: int = 0  # 0 where there is one only.

    @property
    def name(self) -> str:
        """Of the panel, once on the page."""
        parts = self.quantity.replace("_", "-"), self.over, str(self.machine or "")
        return "-".join(part for part in parts if part)

    @property
    def title(self) -> str:
        """As read."""
        where = f", machine {self.machine}" if self.machine else ""
        return f"{self.quantity.replace('_', ' ').capitalize()} over {self.over}{where}"

    def points(self, run: ComparedRun) -> list[tuple[float, float]]:
        """Those that a log axis can show."""
        source = run.losses if self.quantity == "train_loss" else run.evaluations
        every = [(getattr(it, self.over), getattr(it, self.quantity)) for it in source]
        return thinned(tuple((x, y) for x, y in every if x and y is not None))


def pictures(comparison: Comparison) -> tuple[Picture, ...]:
    """Over samples, then over seconds: there the runs of each machine by themselves."""
    return _over_samples(comparison), _over_seconds(comparison)


def _over_samples(comparison: Comparison) -> Picture:
    labels = tuple(run.label for run in comparison.runs)
    caption = (
        "What was learnt from how many samples: by how many workers, and how fast, changes "
        "nothing here."
    )
    panels = (_Curves(name, "samples", labels) for name in (comparison.metric, "train_loss"))
    drawn = tuple(_panel(comparison, panel) for panel in panels)
    return Picture("over-samples", "Over samples", (caption,), drawn)


def _over_seconds(comparison: Comparison) -> Picture:
    machines = comparison.machines
    panels = [
        _Curves(name, "seconds", labels, number if len(machines) > 1 else 0)
        for number, labels in enumerate(machines, 1)
        for name in (comparison.metric, "train_loss")
    ]
    captions = ["Time spent training, evaluations and checkpoints included."]
    if len(machines) > 1:
        captions.append("Times of different machines are not compared: each has its own panels.")
    drawn = tuple(_panel(comparison, panel) for panel in panels)
    return Picture("over-seconds", "Over seconds", tuple(captions), drawn)


def _panel(comparison: Comparison, curves: _Curves) -> Panel:
    runs = [it for it in enumerate(comparison.runs) if it[1].label in curves.labels]
    found = [(index, run, curves.points(run)) for index, run in runs]
    label, shown = _AXES[curves.over]
    x = log_axis(label, [x for *_, points in found for x, _ in points], shown, 0.02)
    y = _y_axis(curves.quantity, [y for *_, points in found for _, y in points])
    chart = Chart(curves.name, curves.title, x, y, height=262.0)
    told = []
    for index, run, points in found:
        name = f"{run.label}: {PurePosixPath(run.place).name}"
        status = "" if run.status == "done" else f" ({run.status})"
        if not points:
            chart.key(MISSING, f"{name} has none{status}")
            continue
        chart.curve(points, series_style(index))
        chart.point(*points[-1], series_style(index), title=name)
        chart.key(series_style(index), name + status)
        told.append(f"{run.label} ends at {words.significant(points[-1][1], 4)}")
    if comparison.target and curves.quantity == comparison.metric:
        chart.level(Target.parse(comparison.target).value, IDEAL)
        chart.key(IDEAL, comparison.target)
    return Panel(curves.name, chart.render(words.sentence("; ".join(told) or "nothing recorded")))


def _y_axis(quantity: str, values: Sequence[float]) -> Axis:
    """Losses on a log axis; an accuracy on a linear one, as near as its values allow."""
    label = quantity.replace("_", " ")
    known = [value for value in values if math.isfinite(value)]
    if quantity != "test_accuracy":
        return log_axis(label, [value for value in known if value > 0], _short)
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = _MARGIN * (high - low) or 0.05
    scale = Scale(low - room, high + room, is_log=False)
    return Axis(label, scale, scale.ticks(_short) if known else ())


def _short(value: float) -> str:
    return f"{value:g}"
