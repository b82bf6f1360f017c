"""A sentence with its figures, and words that several sentences share. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distsgd.experiments.findings import Findings
from distsgd.experiments.report import words


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence and the figures behind it; `is_alarm`: it makes the rest worthless."""

    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)
    is_alarm: bool = False


def missed(findings: Findings) -> dict[str, list[int]]:
    """Batch sizes without steps to target, by reason."""
    known: dict[int, str] = {}
    for cell in findings.cells:
        if cell.steps is None:
            some = f", {cell.num_reached} of {cell.num_seeds} seeds reached it" * bool(
                cell.num_reached
            )
            known.setdefault(cell.batch, (cell.reason or "not measured") + some)
    found: dict[str, list[int]] = {}
    for size in sorted(known):
        found.setdefault(known[size], []).append(size)
    return found


def reasons(findings: Findings) -> str:
    """The same, in parentheses."""
    parts = [f"{words.batches(findings, sizes)}: {why}" for why, sizes in missed(findings).items()]
    return f" ({'; '.join(parts)})" if parts else ""
