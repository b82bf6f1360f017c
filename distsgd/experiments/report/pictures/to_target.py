"""Steps to target and time to target over batch size, with the critical batch sizes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from distsgd.experiments.findings import CriticalBatch, Findings, GridCell, mean_rows
from distsgd.experiments.report import words
from distsgd.experiments.report.chart import (
    BASE,
    IDEAL,
    MISSING,
    MODEL,
    Axis,
    Chart,
    Style,
    log_axis,
    peer_style,
    series_style,
)
from distsgd.experiments.report.pictures.picture import Panel, Picture, batch_axis, dodge
from distsgd.experiments.report.verdicts.learning import learned
from distsgd.experiments.report.verdicts.verdict import missed
from distsgd.experiments.report.verdicts.workers import most_processes

_WAYS = (Style("w0", "6 3"), Style("w1", "2 2"), Style("w2", "8 3 2 3"))


def to_target(findings: Findings) -> Picture:
    """Both panels."""
    captions = [
        (
            "Steps: updates until an evaluation met the target; median over seeds, the bar is its "
            f"interval (evaluations are {words.count(findings.grid_samples)} samples apart, which "
            "is part of it). On the perfect-scaling line twice the rows a step halve the steps; "
            "rows a step are the mean over an epoch, whose last mini-batch may be shorter."
        ),
        "Time: steps times seconds a step, with the interval of both.",
        *(_caption(findings, way) for way in findings.critical),
        (
            "The three look at different parts of training, which have different critical batch "
            "sizes: the hyperbola at the whole way to the target, the noise scale at its last "
            "third, branching at one step."
        ),
    ]
    panels = _steps_panel(findings), _time_panel(findings)
    return Picture("to-target", "Steps and time to the target", tuple(captions), panels)


def _caption(findings: Findings, way: CriticalBatch) -> str:
    text = f"Critical batch by {way.way}: {words.sentence(way.reason or way.how)}"
    each = [
        f"{words.samples_within(scale)} at {words.batch(findings, size)}"
        for size, scale in way.by_batch
    ]
    return f"{text} By batch size: {'; '.join(each)}." if len(each) > 1 else text


def _steps_panel(findings: Findings) -> Panel:
    cells = learned(findings)
    peers = [one for one in findings.peers if one.steps is not None]
    values = [value for cell in cells if cell.steps for value in _ends(cell)]
    values += [float(one.steps or 1) for one in peers]
    y = log_axis("steps to target", values, words.count)
    title = "Steps to target over batch size"
    num_spans = sum(way.batch is not None for way in findings.critical)
    chart = Chart("steps-to-target", title, _axis(findings), y, num_spans=num_spans)
    if cells and cells[0].steps:
        samples = cells[0].steps.mid * mean_rows(cells[0].batch, findings.num_rows)
        chart.curve([(x, samples / mean_rows(x, findings.num_rows)) for x in _along(chart)], IDEAL)
    if findings.fit is not None:
        least, critical = findings.fit
        rows = [(x, mean_rows(x, findings.num_rows)) for x in _along(chart)]
        chart.curve([(x, least * (1 + critical / mean)) for x, mean in rows], MODEL)
    one_core = Style(BASE.colour, "", BASE.marker)
    joined = [(float(cell.batch), cell.steps.mid) for cell in cells if cell.steps]
    for run in _neighbours(findings, joined):
        chart.curve(run, one_core)
    for cell in cells:
        if cell.steps:
            reached = f"{words.count(cell.steps.mid)} steps at {words.batch(findings, cell.batch)}"
            chart.point(cell.batch, cell.steps, one_core, title=reached)
    if cells:
        chart.key(one_core, "measured on one core; holds for any number of workers")
        chart.key(IDEAL, "perfect scaling")
    if findings.fit is not None:
        least, critical = findings.fit
        chart.key(MODEL, f"hyperbola: {words.count(least)} (1 + {words.count(critical)} / batch)")
    _critical_bands(findings, chart)
    for index, name in enumerate(dict.fromkeys(one.peer for one in findings.peers)):
        for one in [peer for peer in peers if peer.peer == name]:
            chart.point(one.batch, float(one.steps or 1), peer_style(index))
            count = f"{words.count(one.steps or 1)} steps at {words.batch(findings, one.batch)}"
            chart.key(peer_style(index), f"{words.peer(name, one.version)}: {count}")
    _mark_missing(findings, chart)
    told = [
        f"{words.batch(findings, c.batch)}: {words.count(c.steps.mid)}" for c in cells if c.steps
    ]
    return Panel("steps-to-target", chart.render(f"Steps to target. {'; '.join(told)}."))


def _axis(findings: Findings) -> Axis:
    """The batch sizes, and critical ones that are not far from them."""
    low, high = min(findings.batches, default=1), max(findings.batches, default=1)
    mids = [way.batch.mid for way in findings.critical if way.batch is not None]
    return batch_axis(findings, more=tuple(m for m in mids if low / 4 <= m <= 4 * high))


def _critical_bands(findings: Findings, chart: Chart) -> None:
    for way, style in zip(findings.critical, _WAYS, strict=False):
        if way.batch is None:
            chart.key(MISSING, f"critical batch by {way.way}: {way.reason}")
            continue
        told = f"critical batch, {way.way}: {words.critical(way)}"
        chart.span(way.batch, style, told)
        chart.key(style, told, is_span=True)


def _time_panel(findings: Findings) -> Panel:
    timed = [cell for cell in findings.cells if cell.time_s]
    peers = [one for one in findings.peers if one.time_s is not None]
    values = [end for cell in timed if cell.time_s for end in (cell.time_s.low, cell.time_s.high)]
    values += [one.time_s or 1.0 for one in peers]
    most, perfect = _perfect_times(findings)
    values += [shared_s for _, shared_s in perfect]
    y = log_axis("time to target", values, short_seconds)
    chart = Chart("time-to-target", "Time to target over batch size", batch_axis(findings), y)
    numbers = sorted(findings.workers)
    for index, number in enumerate(numbers):
        cells = sorted((one for one in timed if one.workers == number), key=lambda c: c.batch)
        style = BASE if number == 0 else series_style(index - 1 if 0 in numbers else index)
        _time_series(findings, chart, cells, (style, dodge(index, len(numbers), 4.0)))
    for run in _neighbours(findings, perfect):
        chart.curve(run, IDEAL)
    if perfect:
        chart.key(IDEAL, f"perfect scaling: one core's time / {most}")
    for index, name in enumerate(dict.fromkeys(one.peer for one in findings.peers)):
        style = peer_style(index)
        for one in [peer for peer in findings.peers if peer.peer == name]:
            called = words.peer(name, one.version)
            if one.time_s is None:
                chart.missing(one.batch, f"{called}: {one.reason}")
                chart.key(MISSING, f"{called} at {words.batch(findings, one.batch)}: {one.reason}")
            else:
                chart.point(one.batch, one.time_s, style, title=words.seconds(one.time_s))
                chart.level(one.time_s, style)
                chart.key(style, f"{called}: {words.seconds(one.time_s)}, all cores")
    _mark_missing(findings, chart)
    told = [
        f"{words.batch(findings, c.batch)}, {words.workers(c.workers)}: "
        f"{words.seconds_within(c.time_s)}"
        for c in timed
        if c.time_s
    ]
    return Panel("time-to-target", chart.render(f"Time to target. {'; '.join(told)}."))


def _time_series(
    findings: Findings, chart: Chart, cells: Sequence[GridCell], look: tuple[Style, float]
) -> None:
    style, shift = look
    joined = [(float(cell.batch), cell.time_s.mid) for cell in cells if cell.time_s]
    for run in _neighbours(findings, joined):
        chart.curve(run, style, shift=shift)
    for cell in cells:
        if cell.time_s:
            said = f"{words.batch(findings, cell.batch)}, {words.workers(cell.workers)}: "
            said += words.seconds_within(cell.time_s)
            chart.point(cell.batch, cell.time_s, style, title=said, shift=shift)
            chart.key(style, words.workers(cell.workers))


def _perfect_times(findings: Findings) -> tuple[int, list[tuple[float, float]]]:
    """One core's time, shared by the most processes that have a core: how many, and (batch, s)."""
    most = min(most_processes(findings), max(1, findings.num_cores))
    base = [cell for cell in findings.cells if cell.workers == 0]
    shared = [(float(cell.batch), cell.time_s.mid / most) for cell in base if cell.time_s and most]
    return most, shared if most > 1 else []


def _mark_missing(findings: Findings, chart: Chart) -> None:
    for why, sizes in missed(findings).items():
        for size in sizes:
            chart.missing(size, why)
        chart.key(MISSING, f"{words.batches(findings, sizes)}: {why}")


def _neighbours(
    findings: Findings, points: Sequence[tuple[float, float]]
) -> list[list[tuple[float, float]]]:
    """Points in runs without a gap: no line is drawn across a batch size that is missing."""
    order = {float(size): place for place, size in enumerate(sorted(findings.batches))}
    some = sorted(points)
    runs = [some[:1]] if some else []
    for before, after in pairwise(some):
        if order.get(after[0], 0) - order.get(before[0], 0) > 1:
            runs.append([])
        runs[-1].append(after)
    return runs


def _along(chart: Chart, number: int = 60) -> list[float]:
    ratio = chart.x.high / chart.x.low
    return [chart.x.low * ratio ** (place / number) for place in range(number + 1)]


def _ends(cell: GridCell) -> tuple[float, float]:
    assert cell.steps is not None
    return cell.steps.low, cell.steps.high


def short_seconds(value: float) -> str:
    """A round time on an axis.

    >>> short_seconds(0.002), short_seconds(30.0), short_seconds(600.0)
    ('2 ms', '30 s', '10 min')
    """
    if value >= 60.0:
        return f"{value / 60:.3g} min"
    size, unit = (1.0, "s") if value >= 1 else (1e-3, "ms") if value >= 1e-3 else (1e-6, "µs")
    return f"{value / size:.3g} {unit}"
