"""What is not known: missed targets, comparisons without an outcome, ranges too narrow. Pure."""

from __future__ import annotations

from typing import Any

from distsgd.experiments.findings import Findings
from distsgd.experiments.report import words
from distsgd.experiments.report.verdicts.verdict import Verdict, missed


def unknown(findings: Findings) -> Verdict:
    """The sentence; where all is known, that, with what was checked."""
    edges = sorted({cell.batch for cell in findings.cells if cell.rate_at_edge})
    figures: dict[str, Any] = {
        "missed": missed(findings),
        "inconclusive": _inconclusive(findings),
        "rate_at_edge": edges,
        "left_out": list(findings.left_out),
        "products_hold": findings.products_hold,
        "num_digests": findings.num_digests,
    }
    clauses = [
        f"{words.batches(findings, sizes)} without steps to target ({why})"
        for why, sizes in missed(findings).items()
    ]
    clauses += [*_untimed(findings), *_told_inconclusive(findings)]
    if edges:
        clauses.append(
            f"the best rate at {words.batches(findings, edges)} lies at the edge of its range, so "
            "a better one may exist"
        )
    clauses += [text.rstrip(".") for text in findings.left_out]
    if findings.products_hold is None:
        clauses.append("no run was made in full to check steps times seconds a step")
    if findings.products_hold is False:
        clauses.append("why runs in full take another time than steps times seconds a step")
    if not findings.digests_equal:
        clauses.append("why the weights depend on the number of workers")
    if not findings.num_digests:
        clauses.append("no digests of weights were compared over the numbers of workers")
    checked = _checked(findings)
    if not clauses:
        return Verdict(
            words.sentence(f"nothing that was asked for is left open: {checked}"), figures
        )
    text = f"still open: {'; '.join(clauses)}"
    return Verdict(words.sentence(f"{text}; checked: {checked}" if checked else text), figures)


def _inconclusive(findings: Findings) -> list[dict[str, Any]]:
    return [
        {"batch": cell.batch, "workers": cell.workers, "time_s": cell.time_s}
        for cell in findings.cells
        if cell.verdict == "inconclusive"
    ]


def _untimed(findings: Findings) -> list[str]:
    """Where a step has no interval of its seconds."""
    told: dict[tuple[int, str], list[int]] = {}
    for cell in findings.timings:
        if cell.step_s is None and not cell.is_weak:
            why = cell.reason or "too few timings"
            told.setdefault((cell.workers, why), []).append(cell.batch)
    return [
        f"no interval of seconds a step {'on' if number == 0 else 'with'} "
        f"{words.workers(number)} at {words.batches(findings, sizes)} ({why})"
        for (number, why), sizes in sorted(told.items())
    ]


def _told_inconclusive(findings: Findings) -> list[str]:
    """Where workers against one core came out neither way, with the seconds of both."""
    base = {cell.batch: cell.time_s for cell in findings.cells if cell.workers == 0}
    told: dict[int, list[str]] = {}
    for cell in findings.cells:
        if cell.verdict == "inconclusive":
            ours, core = cell.time_s, base.get(cell.batch)
            times = ""
            if ours and core:
                times = f" ({words.seconds(ours.mid)}, one core {words.seconds(core.mid)})"
            told.setdefault(cell.workers, []).append(words.batch(findings, cell.batch) + times)
    return [
        f"{words.workers(number)} against one core: inconclusive at {words.listed(places)}"
        for number, places in sorted(told.items())
    ]


def _checked(findings: Findings) -> str:
    parts = []
    if findings.products_hold:
        number = len(findings.products)
        runs = "1 run in full lies" if number == 1 else f"{number} runs in full lie"
        parts.append(f"{runs} within the stated interval")
    if findings.num_digests and findings.digests_equal:
        parts.append(f"{words.count(findings.num_digests)} digests compared, all equal")
    return words.listed(parts)
