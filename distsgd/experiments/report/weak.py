"""Weak scaling as rows of a table: the batch grows with the workers. Pure."""

from __future__ import annotations

from distsgd.experiments.findings import Findings, TimingCell
from distsgd.experiments.report import words


def weak_rows(findings: Findings) -> list[tuple[str, ...]]:
    """One core's batch, workers, batch, one core's seconds a step, seconds a step, speed-up."""
    cells = [cell for cell in findings.timings if cell.is_weak]
    cells.sort(key=lambda cell: (cell.base_batch, cell.workers))
    return [_row(findings, cell) for cell in cells]


def _row(findings: Findings, cell: TimingCell) -> tuple[str, ...]:
    missing = cell.reason or "not timed"
    ratio = cell.speed_up
    return (
        words.batch_short(findings, cell.base_batch),
        str(cell.workers),
        words.batch_short(findings, cell.batch),
        missing if cell.baseline_s is None else words.seconds_within(cell.baseline_s),
        missing if cell.step_s is None else words.seconds_within(cell.step_s),
        missing if ratio is None else f"{ratio.mid:.2f} ({words.ratio_within(ratio)})",
    )
