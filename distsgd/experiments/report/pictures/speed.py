"""Speed-up and efficiency over workers: ideal line, fitted model, what it takes to beat a peer."""

from __future__ import annotations

from collections.abc import Sequence

from distsgd.experiments.findings import Findings, GridCell, PeerCell, StepTimeModel, TimingCell
from distsgd.experiments.report import words
from distsgd.experiments.report.chart import (
    BASE,
    IDEAL,
    MISSING,
    MODEL,
    Axis,
    Chart,
    Style,
    peer_style,
    series_style,
)
from distsgd.experiments.report.pictures.picture import Panel, Picture, dodge, worker_axis
from distsgd.experiments.report.scale import linear_scale
from distsgd.experiments.report.verdicts.fastest import best_of_peer
from distsgd.experiments.report.verdicts.workers import most_processes


def speed(findings: Findings) -> Picture:
    """Both panels."""
    captions = [
        (
            "Speed-up: samples a second over those of one core, measured in the same pairs; the "
            "absolute seconds a step of one core stand in the legend; thin and dotted is the "
            "fitted model. The ideal line counts the processes that computed: the server may be "
            "one of them, so that one worker can make two, and not every worker need be."
        ),
        "Efficiency: speed-up over the number of processes that computed (see the table)."
        + _cores(findings),
        *(_cost_caption(findings, line.peer, line.how) for line in findings.cost),
        *_model_captions(findings.step_time),
    ]
    panels = _speed_panel(findings), _efficiency_panel(findings)
    return Picture("speed", "What more workers buy", tuple(dict.fromkeys(captions)), panels)


def _cores(findings: Findings) -> str:
    if findings.num_cores >= most_processes(findings):
        return ""
    return f" The machine has {words.cores(findings.num_cores)}: more processes share them."


def _cost_caption(findings: Findings, peer: str, how: str) -> str:
    lines = [one for one in findings.cost if (one.peer, one.how) == (peer, how)]
    told = [
        f"{words.batch(findings, one.batch)}: "
        f"{words.not_beaten(one.tried) if one.workers is None else words.workers(one.workers)}"
        for one in lines
    ]
    name = words.peer(peer)
    return f"To beat {name} it takes (COST, McSherry 2015): {'; '.join(told)}; {how}."


def _model_captions(model: StepTimeModel | None) -> list[str]:
    if model is None:
        return ["No model of the step time was fitted."]
    constants = [f"{name} {words.significant(us)} µs" for name, us in model.constants_us.items()]
    return [
        (
            f"Fitted model of a step: {model.formula}; {words.listed(constants)}. On cells that "
            f"were held out of the fit it is off by {words.percent(model.held_out_error)} (median) "
            f"and {words.percent(model.worst_error)} (worst)."
        )
    ]


def _strong(findings: Findings, batch: int) -> list[TimingCell]:
    cells = [one for one in findings.timings if one.batch == batch and not one.is_weak]
    return sorted(cells, key=lambda cell: cell.workers)


def _speed_panel(findings: Findings) -> Panel:
    axis = worker_axis(findings)
    needed = [
        (peer, base_s, base_s / peer.time_s)
        for peer in _peers(findings)
        if peer.time_s and (base_s := _one_core_s(findings, peer.batch))
    ]
    tops = [cell.speed_up.high for cell in findings.timings if cell.speed_up and not cell.is_weak]
    most = max(1, most_processes(findings))
    scale = linear_scale([*tops, float(min(most, max(2, findings.num_cores)))], 1.0)
    y = Axis("times one core", scale, scale.ticks(lambda value: f"{value:g}"))
    chart = Chart("speed-up", "Speed-up over workers", axis, y)
    places = {one: place for place, one in enumerate(sorted(findings.workers))}
    ideal = {place: most_processes(findings, one) for one, place in places.items()}
    chart.curve([(float(place), float(number)) for place, number in ideal.items() if number], IDEAL)
    chart.level(1.0, Style(BASE.colour), "base-line")
    sizes = sorted(findings.batches)
    for index, size in enumerate(sizes):
        shift = dodge(index, len(sizes))
        _speed_series(findings, chart, size, (series_style(index), shift))
    chart.key(IDEAL, "ideal: as many times as processes computed")
    if findings.step_time is not None:
        chart.key(Style("model faint", MODEL.dash), "fitted model")
    _note_one_core(findings, chart)
    for index, (peer, base_s, ratio) in enumerate(needed):
        chart.level(ratio, peer_style(index), "")
        above = "" if chart.y.holds(ratio) else " (above the picture)"
        at = words.batch(findings, peer.batch)
        chart.key(
            Style(peer_style(index).colour.replace("p", "q"), peer_style(index).dash),
            f"COST: {words.peer(peer.peer)} {words.seconds(peer.time_s or 0.0)}, one core "
            f"{words.seconds(base_s)} ({at}): {ratio:.2f}\N{MULTIPLICATION SIGN}{above}",
        )
    return Panel("speed-up", chart.render(_told(findings)))


def _note_one_core(findings: Findings, chart: Chart) -> None:
    if not any(findings.workers):
        chart.note("one core only: no worker was timed")


def _speed_series(findings: Findings, chart: Chart, size: int, look: tuple[Style, float]) -> None:
    style, shift = look
    places = {one: float(place) for place, one in enumerate(sorted(findings.workers))}
    cells = [cell for cell in _strong(findings, size) if cell.workers in places]
    base = next((cell.baseline_s for cell in cells if cell.baseline_s), None)
    points = [(places[0], 1.0)] if 0 in places and base else []
    for cell in (one for one in cells if one.workers):
        at = f"{words.batch(findings, size)}, {words.workers(cell.workers)}"
        if cell.speed_up is None:
            why = cell.reason or "not timed"
            chart.missing(places[cell.workers], why, shift)
            chart.key(MISSING, f"{at}: {why}")
            continue
        title = f"{at}: {words.ratio_within(cell.speed_up)} times one core"
        points.append((places[cell.workers], cell.speed_up.mid))
        chart.point(places[cell.workers], cell.speed_up, style, title=title, shift=shift)
    chart.curve(points, style, shift=shift)
    if len(points) > 1:
        against = f", one core {words.seconds(base.mid)}" if base else ""
        chart.key(style, f"{words.batch_key(findings, size)}{against}")
    _model_series(findings, chart, size, style)


def _model_series(findings: Findings, chart: Chart, size: int, style: Style) -> None:
    if findings.step_time is None:
        return
    told = {w: s for batch, w, s in findings.step_time.predicted if batch == size}
    base = told.get(0)
    if base is None:
        return
    numbers = sorted(findings.workers)
    points = [(float(numbers.index(w)), base / told[w]) for w in numbers if w in told]
    chart.curve(points, Style(style.colour, MODEL.dash), "faint")


def _peers(findings: Findings) -> list[PeerCell]:
    names = dict.fromkeys(peer.peer for peer in findings.peers)
    return [best_of_peer(findings, name) for name in names]


def _one_core_s(findings: Findings, batch: int) -> float | None:
    """One core's time to target at a batch size."""
    cells = [cell for cell in findings.cells if cell.workers == 0 and cell.batch == batch]
    return next((cell.time_s.mid for cell in cells if cell.time_s), None)


def _efficiency_panel(findings: Findings) -> Panel:
    axis = worker_axis(findings)
    tops = [cell.efficiency.high for cell in findings.cells if cell.efficiency]
    scale = linear_scale(tops, 1.0)
    y = Axis("efficiency", scale, scale.ticks(words.percent))
    chart = Chart("efficiency", "Efficiency over workers", axis, y)
    chart.level(1.0, IDEAL, "")
    places = {one: float(place) for place, one in enumerate(sorted(findings.workers))}
    sizes = sorted(findings.batches)
    for index, size in enumerate(sizes):
        cells = sorted((c for c in findings.cells if c.batch == size), key=lambda c: c.workers)
        shift = dodge(index, len(sizes))
        _efficiency_series(findings, chart, cells, (series_style(index), shift, places))
    chart.key(IDEAL, "ideal: every process as fast as one core")
    _note_one_core(findings, chart)
    return Panel("efficiency", chart.render(_told(findings)))


def _efficiency_series(
    findings: Findings,
    chart: Chart,
    cells: Sequence[GridCell],
    look: tuple[Style, float, dict[int, float]],
) -> None:
    style, shift, places = look
    base = next((cell.step_s for cell in cells if cell.workers == 0 and cell.step_s), None)
    points = [(places[0], 1.0)] if 0 in places and base else []
    for cell in (one for one in cells if one.workers in places and one.workers):
        at = f"{words.batch(findings, cell.batch)}, {words.workers(cell.workers)}"
        if cell.efficiency is None:
            why = cell.reason or "not timed"
            chart.missing(places[cell.workers], why, shift)
            chart.key(MISSING, f"{at}: {why}")
            continue
        title = f"{at}: {words.percent(cell.efficiency.mid)}"
        points.append((places[cell.workers], cell.efficiency.mid))
        chart.point(places[cell.workers], cell.efficiency, style, title=title, shift=shift)
    chart.curve(points, style, shift=shift)
    if len(points) > 1:
        against = f", one core {words.seconds(base.mid)}" if base else ""
        chart.key(style, f"{words.batch_key(findings, cells[0].batch)}{against}")


def _told(findings: Findings) -> str:
    told = [
        f"{words.batch(findings, c.batch)}, {words.workers(c.workers)}: {c.speed_up.mid:.2f}"
        for c in findings.timings
        if c.speed_up and c.workers and not c.is_weak
    ]
    return f"Times one core's speed. {'; '.join(told)}."
