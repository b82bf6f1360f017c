"""Where a step goes: its phases stacked to the whole, and its seconds over the batch size. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from distsgd.experiments.findings import Findings, TimingCell
from distsgd.experiments.report import svg, words
from distsgd.experiments.report.chart import (
    BASE,
    MISSING,
    MODEL,
    WIDTH,
    Chart,
    Style,
    legend_rows,
    log_axis,
    peer_style,
    series_style,
)
from distsgd.experiments.report.pictures.picture import Panel, Picture, batch_axis, dodge
from distsgd.experiments.report.pictures.to_target import short_seconds
from distsgd.experiments.report.verdicts.workers import shares, waiting

_LEFT, _RIGHT, _TOP, _ROW, _BAR = 76.0, 114.0, 50.0, 19.0, 14.0
_WAITING = WIDTH - 44.0


def phases(findings: Findings) -> Picture:
    """Both panels."""
    captions: tuple[str, ...] = (
        (
            "Phases: each bar is one step, its absolute time at the right; parts below 8 % carry "
            "no number. One core, the baseline, is the first bar of each batch size. Waiting is no "
            "part of the bar: it is the share of the step for which the processes that computed "
            "waited for the slowest of them, on average."
        ),
        "Seconds a step: the same with their intervals; dotted: the fitted model.",
    )
    captions += tuple(_mixed(findings))
    panels = _bars_panel(findings), _step_panel(findings)
    return Picture("phases", "Where a step goes", captions, panels)


def _mixed(findings: Findings) -> Iterator[str]:
    """Of each cell whose pairs did not all have the same plan."""
    for cell in findings.timings:
        if len(cell.plans) > 1 and not cell.is_weak:
            at = f"{words.batch(findings, cell.batch)}, {words.workers(cell.workers)}"
            who = words.processes(cell.assignment)
            text = f"{at}, {words.plan(cell.plans)} pairs: the bar is a step of {who}"
            yield words.sentence(text)


def _bars_panel(findings: Findings) -> Panel:
    parts: list[str] = []
    top = _TOP
    cells = sorted(
        (cell for cell in findings.timings if not cell.is_weak),
        key=lambda cell: (cell.batch, cell.workers),
    )
    for size, some in groupby(cells, key=lambda cell: cell.batch):
        parts.append(svg.text((0, top + 11), words.batch_key(findings, size), "label"))
        top += _ROW - 2
        for cell in some:
            parts += _bar(cell, top)
            top += _ROW
        top += 6
    for peer in findings.peers:
        if peer.step_s is not None:
            name = f"{words.peer(peer.peer, peer.version)}, {words.batch(findings, peer.batch)}"
            parts.append(svg.text((0, top + 11), f"{name}: phases not seen", "key"))
            took = words.seconds(peer.step_s)
            parts.append(svg.text((WIDTH - _RIGHT + 6, top + 11), took, "value"))
            top += _ROW
    if not parts:
        parts.append(svg.text((0, top + 11), "No step was timed.", "key"))
        top += _ROW
    legend, rows = _phase_legend(cells, top + 16)
    size = WIDTH, top + 16 + rows * 16 + 8
    heads = [
        svg.box((0, 0), size, "paper"),
        svg.text((0, 14), "Phases of a step", "title"),
        svg.text((WIDTH - _RIGHT + 6, _TOP - 8), "a step", "label"),
        svg.text((_WAITING, _TOP - 8), "waiting", "label"),
        svg.text((_LEFT, _TOP - 8), "share of the step", "label"),
    ]
    told = [
        f"{words.batch(findings, c.batch)}, {words.workers(c.workers)}: {_said(c)}" for c in cells
    ]
    body = [*heads, *parts, *legend]
    title = "Phases of a step"
    return Panel("phases", svg.document("phases", size, title, f"{'; '.join(told)}.", body))


def _bar(cell: TimingCell, top: float) -> list[str]:
    who = words.workers(cell.workers)
    took = words.seconds(cell.step_s.mid) if cell.step_s else "not timed"
    parts = [svg.text((_LEFT - 8, top + 11), who, "tick end")]
    known = dict(shares(cell))
    if known:
        told = svg.element("title", escape(f"{who}: {_said(cell, len(known))}"))
        segments = _segments(known, top)
        parts.append(svg.element("g", told + "".join(segments)))
    else:
        parts.append(svg.marker((_LEFT + 8, top + 7), "cross", "dot missing"))
        why = cell.reason or "its phases were not measured"
        parts.append(svg.text((_LEFT + 18, top + 11), why, "key"))
    wait = waiting(cell)
    if wait is not None:
        parts.append(svg.text((_WAITING, top + 11), words.percent(wait), "value"))
    return [*parts, svg.text((WIDTH - _RIGHT + 6, top + 11), took, "value")]


def _segments(known: dict[str, float], top: float) -> Iterator[str]:
    """The parts of a bar from left to right, with their share where it fits."""
    left, width = _LEFT, WIDTH - _LEFT - _RIGHT
    for name in _ordered(known):
        corner, size = (left, top), (known[name] * width, _BAR)
        yield svg.box(corner, size, f"phase {_colour(name)}")
        if known[name] >= 0.08:
            middle = left + size[0] / 2, top + 11
            yield svg.text(middle, words.percent(known[name]), f"inside on-{_colour(name)}")
        left += size[0]


def _ordered(names: Iterable[str]) -> list[str]:
    """The phases in the order of a step; names that are not ours come last."""
    order = [*words.PHASES]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _colour(name: str) -> str:
    return f"f-{name}" if name in words.PHASES else "f-unknown"


def _phase_legend(cells: list[TimingCell], top: float) -> tuple[list[str], int]:
    entries = []
    for name in _ordered(dict.fromkeys(name for cell in cells for name, _ in shares(cell))):
        glyph = svg.box((-11, -6), (22, 12), f"phase {_colour(name)}")
        entries.append((glyph, words.PHASES.get(name, name)))
    return legend_rows(entries, top)


def _said(cell: TimingCell, most: int = 3) -> str:
    parts = [
        f"{words.percent(share)} {words.PHASES.get(name, name)}" for name, share in shares(cell)
    ]
    wait = waiting(cell)
    idle = f"; waiting {words.percent(wait)}" if wait is not None else ""
    return words.listed(parts[:most]) + idle if parts else cell.reason or "not measured"


def _step_panel(findings: Findings) -> Panel:
    cells = [cell for cell in findings.timings if not cell.is_weak]
    values = [end for c in cells if c.step_s for end in (c.step_s.low, c.step_s.high)]
    values += [peer.step_s for peer in findings.peers if peer.step_s]
    y = log_axis("seconds a step", values, short_seconds)
    chart = Chart(
        "step-time", "Seconds a step over batch size", batch_axis(findings), y, height=262.0
    )
    numbers = sorted(findings.workers)
    for index, number in enumerate(numbers):
        style = BASE if number == 0 else series_style(index - 1 if 0 in numbers else index)
        shift = dodge(index, len(numbers), 4.0)
        some = sorted((c for c in cells if c.workers == number), key=lambda c: c.batch)
        points = [(float(c.batch), c.step_s.mid) for c in some if c.step_s]
        chart.curve(points, style, shift=shift)
        for cell in some:
            if cell.step_s:
                said = words.seconds_within(cell.step_s)
                chart.point(cell.batch, cell.step_s, style, title=said, shift=shift)
                chart.key(style, words.workers(number))
            else:
                chart.missing(cell.batch, cell.reason, shift)
                at = f"{words.batch(findings, cell.batch)}, {words.workers(number)}"
                chart.key(MISSING, f"{at}: {cell.reason or 'not timed'}")
        _model_curve(findings, chart, number, style)
    for index, name in enumerate(dict.fromkeys(peer.peer for peer in findings.peers)):
        for peer in findings.peers:
            if peer.peer == name and peer.step_s:
                chart.point(peer.batch, peer.step_s, peer_style(index))
                called = words.peer(name, peer.version)
                chart.key(peer_style(index), f"{called}: {words.seconds(peer.step_s)}, all cores")
    told = [
        f"{words.batch(findings, c.batch)}, {words.workers(c.workers)}: "
        f"{words.seconds_within(c.step_s)}"
        for c in cells
        if c.step_s
    ]
    return Panel("step-time", chart.render(f"Seconds a step. {'; '.join(told)}."))


def _model_curve(findings: Findings, chart: Chart, number: int, style: Style) -> None:
    if findings.step_time is None:
        return
    told = sorted((b, s) for b, w, s in findings.step_time.predicted if w == number)
    chart.curve([(float(b), s) for b, s in told], Style(style.colour, MODEL.dash), "faint")
    if len(told) > 1:
        chart.key(MODEL, "fitted model")
