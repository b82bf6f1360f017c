"""Rate and batch size as a heat map of steps to target, with the chosen rates and edges. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from distsgd.experiments.findings import Findings, LearningCell
from distsgd.experiments.report import svg, words
from distsgd.experiments.report.chart import WIDTH, Style, legend_rows, peer_style
from distsgd.experiments.report.pictures.picture import Panel, Picture

_LEFT, _TOP, _MOST_ROW = 62.0, 48.0, 26.0
_NUM_SHADES = 6


def rates(findings: Findings) -> Picture:
    """The only panel."""
    captions = (
        (
            "One square for each batch size and learning rate that was tried on one core; the "
            "number is steps to target, for the trial where one was made, else the median of the "
            "seeds. The stronger the colour, the fewer samples were seen until then, within a "
            "batch size: each shade is a third more, the last is four times as many or more."
        ),
    )
    return Picture("rates", "Learning rates that were tried", captions, (_panel(findings),))


def _panel(findings: Findings) -> Panel:
    sizes = sorted(findings.batches)
    tried = sorted({cell.rate for cell in findings.learning}, reverse=True)
    heading = svg.text((0, 14), "Steps to target by learning rate and batch size", "title")
    if not tried or not sizes:
        note = svg.text((0, 40), "No rate was tried.", "key")
        body = [svg.box((0, 0), (WIDTH, 60), "paper"), heading, note]
        document = svg.document("rates", (WIDTH, 60), "Learning rates", "No rate was tried.", body)
        return Panel("rates", document)
    size = (
        min(120.0, (WIDTH - _LEFT - 4) / len(sizes)),
        min(_MOST_ROW, max(13.0, 260.0 / len(tried))),
    )
    parts = [svg.text((_LEFT - 6, _TOP - 8), "rate", "label end")]
    for row, one in enumerate(tried):
        middle = _TOP + (row + 0.5) * size[1] + 4
        parts.append(svg.text((_LEFT - 6, middle), words.rate(one), "tick end"))
    bottom = _TOP + len(tried) * size[1]
    reasons: dict[str, str] = {}
    for column, batch in enumerate(sizes):
        left = _LEFT + column * size[0]
        middle = left + size[0] / 2
        parts.append(svg.text((middle, bottom + 16), words.count(batch), "tick middle"))
        note = "SGD" if batch == 1 else "whole" if batch == findings.num_rows else ""
        parts.append(svg.text((middle, bottom + 30), note, "note middle"))
        parts += _column(findings, batch, tried, (left, size, reasons))
    parts.append(
        svg.text(
            (_LEFT + size[0] * len(sizes) / 2, bottom + 46),
            "batch size (rows a step)",
            "label middle",
        )
    )
    peers = _peers(findings, tried, size)
    legend, rows = _legend(findings, reasons, bottom + 68)
    whole = WIDTH, bottom + 68 + rows * 16 + 8
    body = [svg.box((0, 0), whole, "paper"), heading, *parts, *peers, *legend]
    return Panel("rates", svg.document("rates", whole, "Learning rates", _told(findings), body))


Room = tuple[float, tuple[float, float], dict[str, str]]


def _column(findings: Findings, batch: int, tried: Sequence[float], room: Room) -> list[str]:
    left, (width, height), reasons = room
    parts: list[str] = []
    cells = {rate: _of_rate(findings, batch, rate) for rate in tried}
    reached = [cell.samples_until for cell in cells.values() if cell and cell.samples_until]
    fewest = min(reached, default=1)
    for row, one in enumerate(tried):
        cell = cells[one]
        corner = left + 1, _TOP + row * height + 1
        middle = left + width / 2, _TOP + (row + 0.5) * height + 4
        if cell is None:
            parts.append(svg.box(corner, (width - 2, height - 2), "cell untried"))
            continue
        if cell.steps is None or not cell.samples_until:
            letter = reasons.setdefault(cell.reason, _letter(cell.reason, reasons))
            parts.append(svg.box(corner, (width - 2, height - 2), "cell failed", cell.reason))
            parts.append(svg.text(middle, letter, "why"))
        else:
            shade = _shade(cell.samples_until, fewest)
            title = f"{words.count(cell.samples_until)} samples"
            parts.append(svg.box(corner, (width - 2, height - 2), f"cell h{shade}", title))
            steps = words.count(cell.steps)
            if svg.width_of(steps, 11) < width - 4:
                parts.append(svg.text(middle, steps, f"inside on-h{shade}"))
        if cell.is_chosen:
            parts.append(svg.box(corner, (width - 2, height - 2), "chosen"))
            if _is_edge(findings, batch):
                at = left + width - 4, _TOP + row * height + 3
                parts.append(svg.marker(at, "triangle", "dot edge", "at the edge of the range"))
    return parts


def _of_rate(findings: Findings, batch: int, rate: float) -> LearningCell | None:
    """The trial; without one, the middle one of the seeds, those that failed last."""
    cells = [cell for cell in findings.learning if (cell.batch, cell.rate) == (batch, rate)]
    trials = [cell for cell in cells if cell.is_trial]
    if trials:
        return trials[-1]
    cells.sort(key=lambda cell: math.inf if cell.steps is None else cell.steps)
    return cells[(len(cells) - 1) // 2] if cells else None


def _is_edge(findings: Findings, batch: int) -> bool:
    return any(cell.batch == batch and cell.rate_at_edge for cell in findings.cells)


def _shade(samples: float, fewest: float) -> int:
    """0 for the fewest samples, a shade more for each third more of them.

    >>> _shade(100, 100), _shade(150, 100), _shade(1000, 100)
    (0, 1, 5)
    """
    return min(_NUM_SHADES - 1, int(math.log(samples / fewest) / math.log(4 / 3)))


def _letter(reason: str, known: dict[str, str]) -> str:
    """A letter that stands for the reason: its first that is free."""
    free = [letter for letter in reason.upper() if letter.isalpha()]
    return next((letter for letter in free if letter not in known.values()), "?")


def _peers(findings: Findings, tried: Sequence[float], size: tuple[float, float]) -> list[str]:
    """A small mark in the square whose rate is nearest to a peer's, at its lower border."""
    parts = []
    sizes = sorted(findings.batches)
    names = list(dict.fromkeys(peer.peer for peer in findings.peers))
    for peer in findings.peers:
        if not peer.rate or peer.batch not in sizes:
            continue
        far = [abs(math.log(one / peer.rate)) for one in tried]
        row, index = far.index(min(far)), names.index(peer.peer)
        left = _LEFT + sizes.index(peer.batch) * size[0] + 8.0 + 11.0 * index
        style = _small(index)
        at = left, _TOP + (row + 1) * size[1] - 4.0
        title = f"{words.peer(peer.peer)}: rate {words.rate(peer.rate)}"
        parts.append(svg.marker(at, style.marker, f"dot {style.colour}", title))
    return parts


def _small(index: int) -> Style:
    style = peer_style(index)
    return replace(style, marker=style.marker.removeprefix("big-"))


def _legend(findings: Findings, reasons: dict[str, str], top: float) -> tuple[list[str], int]:
    entries = [(svg.box((-11, -6), (22, 12), "chosen"), "chosen")]
    if any(cell.rate_at_edge for cell in findings.cells):
        edge = svg.marker((0, 0), "triangle", "dot edge")
        entries.append((edge, "at the edge of the range that was tried"))
    for reason, letter in reasons.items():
        glyph = svg.box((-11, -6), (22, 12), "cell failed") + svg.text((0, 4), letter, "why")
        entries.append((glyph, reason or "not reached"))
    for index, name in enumerate(dict.fromkeys(peer.peer for peer in findings.peers)):
        style = _small(index)
        glyph = svg.marker((0, 0), style.marker, f"dot {style.colour}")
        known = [peer for peer in findings.peers if peer.peer == name and peer.rate]
        for peer in known[:1]:
            steps = (
                "target not reached" if peer.steps is None else f"{words.count(peer.steps)} steps"
            )
            told = f"{words.peer(name, peer.version)}: rate {words.rate(peer.rate or 0.0)}, {steps}"
            entries.append((glyph, told))
    return legend_rows(entries, top)


def _told(findings: Findings) -> str:
    chosen = {cell.batch: cell.rate for cell in findings.learning if cell.is_chosen}
    told = [f"{words.batch(findings, size)}: {words.rate(one)}" for size, one in chosen.items()]
    return f"Chosen rates: {'; '.join(told) or 'none'}."
