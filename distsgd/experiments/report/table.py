"""The table of the report: a row for each batch size and number of workers, and the peers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from distsgd.experiments.findings import Findings, GridCell, PeerCell
from distsgd.experiments.report import words

HEADS = (
    "batch",
    "rate",
    "steps to target",
    "computed by",
    "seconds a step",
    "time to target",
    "efficiency",
    "verdict",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row as it is read; `steps` to `time` say the reason where a figure is missing.

    Attributes:
        plan: Which processes computed.
        is_edge: Does the chosen rate lie at the edge of its range?
        kind: "base" for one core, "cell" for workers, "peer" for what is no part of this project.
    """

    batch: str
    rate: str
    is_edge: bool
    steps: str
    steps_range: str
    num_seeds: str
    who: str
    plan: str
    step: str
    time: str
    full_run: str
    efficiency: str
    verdict: str
    kind: str


def rows(findings: Findings) -> list[Row]:
    """All rows, by batch and workers, then the peers."""
    cells = sorted(findings.cells, key=lambda cell: (cell.batch, cell.workers))
    ours = (_row(findings, cell) for cell in cells)
    return [*ours, *(_peer_row(findings, peer) for peer in findings.peers)]


def _row(findings: Findings, cell: GridCell) -> Row:
    missing = cell.reason or "not measured"
    steps_range = ""
    if cell.steps_range is not None:
        low, high = map(words.count, cell.steps_range)
        steps_range = f"{low} to {high}"
    return Row(
        batch=words.batch_short(findings, cell.batch),
        rate="none chosen" if cell.rate is None else words.rate(cell.rate),
        is_edge=cell.rate_at_edge,
        steps=missing if cell.steps is None else words.count(cell.steps.mid),
        steps_range=steps_range,
        num_seeds=f"{cell.num_reached} of {cell.num_seeds} seeds" if cell.num_seeds else "",
        who=words.workers(cell.workers),
        plan=words.plan(cell.plans) if cell.workers else "",
        step=missing if cell.step_s is None else words.seconds_within(cell.step_s),
        time=missing if cell.time_s is None else words.seconds_within(cell.time_s),
        full_run="" if cell.full_run_s is None else f"in full {words.seconds(cell.full_run_s)}",
        efficiency=_efficiency(cell),
        verdict="baseline" if cell.workers == 0 else cell.verdict or "none",
        kind="cell" if cell.workers else "base",
    )


def _efficiency(cell: GridCell) -> str:
    if cell.efficiency is None or cell.workers == 0:
        return ""
    ends = words.percent(cell.efficiency.low), words.percent(cell.efficiency.high)
    low, high = (end.removesuffix(" %") for end in ends)
    return f"{words.percent(cell.efficiency.mid)} ({low} to {high})"


def _peer_row(findings: Findings, peer: PeerCell) -> Row:
    missing = peer.reason or "not measured"
    return Row(
        batch=words.batch_short(findings, peer.batch),
        rate="" if peer.rate is None else words.rate(peer.rate),
        is_edge=False,
        steps=missing if peer.steps is None else words.count(peer.steps),
        steps_range="",
        num_seeds="",
        who=f"{words.peer(peer.peer, peer.version)}, all cores",
        plan="",
        step=missing if peer.step_s is None else words.seconds(peer.step_s),
        time=missing if peer.time_s is None else words.seconds(peer.time_s),
        full_run="",
        efficiency="",
        verdict="peer",
        kind="peer",
    )
