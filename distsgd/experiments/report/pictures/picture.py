"""What all pictures share: panels with a caption, axes over batch sizes and workers. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distsgd.experiments.findings import Findings
from distsgd.experiments.report import words
from distsgd.experiments.report.chart import Axis
from distsgd.experiments.report.scale import Scale, log_scale


@dataclass(frozen=True, slots=True)
class Panel:
    """One SVG; `name` is also that of its file."""

    name: str
    svg: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels under one heading, with sentences to read them by."""

    name: str
    title: str
    captions: tuple[str, ...]
    panels: tuple[Panel, ...]


def batch_axis(findings: Findings, *, more: tuple[float, ...] = ()) -> Axis:
    """Batch sizes on a log axis; SGD, mini-batch and whole batch are noted below."""
    sizes = sorted(findings.batches) or [1, max(2, findings.num_rows)]
    scale = log_scale([*map(float, sizes), *more])
    notes = []
    between = [size for size in sizes if 1 < size < findings.num_rows]
    if sizes[0] == 1:
        notes.append((1.0, "SGD"))
    if between:
        notes.append((math.sqrt(between[0] * between[-1]), "mini-batch"))
    if sizes[-1] == findings.num_rows:
        notes.append((float(findings.num_rows), "whole batch"))
    ticks = [(float(size), words.count(size)) for size in sizes]
    return Axis("batch size (rows a step)", scale, ticks, notes)


def worker_axis(findings: Findings) -> Axis:
    """Numbers of workers, evenly apart in their order; one core first."""
    numbers = sorted(findings.workers) or [0]
    ticks = [(float(i), "one core" if one == 0 else str(one)) for i, one in enumerate(numbers)]
    scale = Scale(-0.45, len(numbers) - 0.55, is_log=False)
    return Axis("workers", scale, ticks)


def dodge(index: int, number: int, width: float = 5.0) -> float:
    """How far aside the series `index` of `number` stands, in points, so that bars do not hide."""
    return (index - (number - 1) / 2) * min(width, 24.0 / number)
