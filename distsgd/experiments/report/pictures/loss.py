"""Loss over samples: one curve a batch size, which is that of every number of workers. Pure."""

from __future__ import annotations

from distsgd.experiments.findings import Findings, LearningCell
from distsgd.experiments.report import words
from distsgd.experiments.report.chart import (
    MISSING,
    Chart,
    Style,
    log_axis,
    peer_style,
    series_style,
)
from distsgd.experiments.report.pictures.picture import Panel, Picture

MOST_POINTS = 120


def loss(findings: Findings) -> Picture:
    """The only panel."""
    captions = (
        (
            f"One curve a batch size, of its first seed at the chosen rate, made on one core. "
            f"{digest_sentence(findings)}"
        ),
    )
    return Picture("loss", "Loss over samples", captions, (_panel(findings),))


def digest_sentence(findings: Findings) -> str:
    """What comparing the weights over the numbers of workers gave."""
    number = words.count(findings.num_digests)
    if not findings.num_digests:
        return "No digests were compared, so that workers change nothing is not shown here."
    if findings.digests_equal:
        return f"{number} digests compared, all equal: the curve is that of any number of workers."
    return f"{number} digests compared, not all equal: workers change the curve, which is a fault."


def shown_runs(findings: Findings) -> list[tuple[int, LearningCell | None]]:
    """For each batch size its first seed's run at the chosen rate, or None."""
    runs = []
    for size in sorted(findings.batches):
        cells = [
            cell
            for cell in findings.learning
            if cell.batch == size and cell.is_chosen and not cell.is_trial and cell.losses
        ]
        runs.append((size, min(cells, key=lambda cell: cell.seed, default=None)))
    return runs


def thinned(points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` of them, the last among them."""
    step = max(1, -(-len(points) // MOST_POINTS))
    return [(float(x), y) for x, y in points[::-1][::step][::-1]]


def _panel(findings: Findings) -> Panel:
    runs = shown_runs(findings)
    curves = [thinned(run.losses) for _, run in runs if run]
    x = log_axis("samples seen", [x for c in curves for x, _ in c], short_count, 0.02)
    y = log_axis("training loss", [y for c in curves for _, y in c], _short)
    chart = Chart("loss", "Training loss over samples, any number of workers", x, y, height=262.0)
    for index, (size, run) in enumerate(runs):
        style = series_style(index)
        name = words.batch_key(findings, size)
        if run is None:
            chart.key(MISSING, f"{name}: no run at a chosen rate")
            continue
        points = thinned(run.losses)
        chart.curve(points, style)
        chart.point(*points[-1], style, title=name)
        why = f" ({run.reason})" if run.reason else ""
        chart.key(style, f"{name}{why}")
    for index, name in enumerate(dict.fromkeys(peer.peer for peer in findings.peers)):
        _mark_peer(findings, chart, name, index)
    chart.key(Style("none"), digest_sentence(findings))
    told = [f"{words.batch(findings, size)}: {_end(run)}" for size, run in runs if run]
    return Panel("loss", chart.render(f"Loss at the end. {'; '.join(told)}."))


def _mark_peer(findings: Findings, chart: Chart, name: str, index: int) -> None:
    """A vertical line where the peer had met the target."""
    for peer in findings.peers:
        if peer.peer == name and peer.steps:
            style = peer_style(index)
            chart.upright(min(max(peer.steps * peer.batch, chart.x.low), chart.x.high), style)
            line = Style(style.colour.replace("p", "q"), style.dash)
            size = words.batch(findings, peer.batch)
            chart.key(line, f"{words.peer(name)} met the target here, at {size}")


def _end(run: LearningCell) -> str:
    return f"{words.significant(run.losses[-1][1])} after {words.count(run.losses[-1][0])} samples"


def short_count(value: float) -> str:
    """A round count on an axis.

    >>> short_count(200.0), short_count(20000.0), short_count(3e6)
    ('200', '20 k', '3 M')
    """
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _short(value: float) -> str:
    return f"{value:g}"
