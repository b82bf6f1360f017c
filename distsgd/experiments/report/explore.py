"""The figures that the page's switches draw, as plain data for its script. Pure."""

from __future__ import annotations

from typing import Any

from distsgd.experiments.findings import Findings
from distsgd.experiments.report import words
from distsgd.experiments.report.chart import series_style
from distsgd.experiments.report.pictures.loss import shown_runs, thinned
from distsgd.experiments.report.verdicts.learning import learned

VIEWS = {
    "steps": "steps to target",
    "time": "time to target",
    "step": "seconds a step",
    "loss": "loss over samples",
}


def figures(findings: Findings) -> dict[str, Any]:
    """Views with their series; views without one are not there."""
    views = [_steps(findings), *_times(findings), _loss(findings)]
    return {"views": [view for view in views if view["series"]]}


def _steps(findings: Findings) -> dict[str, Any]:
    points = [[cell.batch, cell.steps.mid] for cell in learned(findings) if cell.steps]
    series = [_series("any number of workers", points, None)] if points else []
    for number, peer in enumerate(findings.peers):
        if peer.steps is not None:
            label = f"{words.peer(peer.peer)}, batch {words.count(peer.batch)}"
            series.append(_series(label, [[peer.batch, peer.steps]], 5 + number))
    return _view("steps", ("batch size", "steps to target"), series)


def _times(findings: Findings) -> list[dict[str, Any]]:
    time, step = [], []
    for index, number in enumerate(sorted(findings.workers)):
        cells = sorted((c for c in findings.cells if c.workers == number), key=lambda c: c.batch)
        place = None if number == 0 else index - (0 in findings.workers)
        times = [[c.batch, c.time_s.mid] for c in cells if c.time_s]
        steps = [[c.batch, c.step_s.mid] for c in cells if c.step_s]
        time += [_series(words.workers(number), times, place)] if times else []
        step += [_series(words.workers(number), steps, place)] if steps else []
    for number, peer in enumerate(findings.peers):
        label = f"{words.peer(peer.peer)}, batch {words.count(peer.batch)}"
        time += [_series(label, [[peer.batch, peer.time_s]], 5 + number)] if peer.time_s else []
        step += [_series(label, [[peer.batch, peer.step_s]], 5 + number)] if peer.step_s else []
    return [
        _view("time", ("batch size", "seconds to target"), time),
        _view("step", ("batch size", "seconds a step"), step),
    ]


def _loss(findings: Findings) -> dict[str, Any]:
    series = [
        _series(words.batch_key(findings, size), [list(p) for p in thinned(run.losses)], i)
        for i, (size, run) in enumerate(shown_runs(findings))
        if run is not None
    ]
    return _view("loss", ("samples seen", "training loss"), series)


def _view(name: str, axes: tuple[str, str], series: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "x": axes[0], "y": axes[1], "series": series}


def _series(label: str, points: list[list[float]], index: int | None) -> dict[str, Any]:
    """One line; `index` None is one core, in ink."""
    style = None if index is None else series_style(index)
    dash = [int(part) for part in style.dash.split()] if style else []
    colour = style.colour if style else "ink"
    short = [[float(f"{value:.5g}") for value in point] for point in points]
    return {"label": label, "colour": colour, "dash": dash, "points": short}
