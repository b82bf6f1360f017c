"""The fastest way to the target, and what it is measured against: one core, and the peers. Pure."""

from __future__ import annotations

import math
from typing import Any

from distsgd.experiments.findings import Findings, GridCell, PeerCell
from distsgd.experiments.report import words
from distsgd.experiments.report.verdicts.learning import learned
from distsgd.experiments.report.verdicts.verdict import Verdict, reasons


def fastest(findings: Findings) -> Verdict:
    """The sentence; where nothing reached the target, why."""
    timed = [cell for cell in findings.cells if cell.time_s is not None]
    peers, figures = _peer_clause(findings)
    if not timed:
        return Verdict(words.sentence(_no_time(findings) + peers), figures)
    best = min(timed, key=_time)
    base = min((cell for cell in timed if cell.workers == 0), key=_time, default=None)
    others = [cell for cell in timed if cell.workers > 0]
    text = f"the fastest way to {findings.target} was {_way(findings, best)}: {_cost(best)}"
    figures |= {"fastest": _figures(best), "one_core": base and _figures(base)}
    if base is None:
        text += "; one core has no time to compare it with"
    elif base is not best:
        text += f"; one core's best is {_cost(base)}, {_at(findings, base, best)}"
        text += _overlap(best, base)
    elif others:
        next_best = min(others, key=_time)
        figures["best_with_workers"] = _figures(next_best)
        text += f"; the best with workers is {_way(findings, next_best)}: {_cost(next_best)}"
        text += _overlap(best, next_best)
    return Verdict(words.sentence(text + peers), figures)


def _no_time(findings: Findings) -> str:
    """Why no cell has a time to target: no steps to it, or no seconds a step."""
    cells = learned(findings)
    if not cells:
        used = words.count(findings.most_samples)
        return f"no batch size reached {findings.target} within {used} samples{reasons(findings)}"
    best = min(cells, key=lambda cell: cell.steps.mid if cell.steps else math.inf)
    steps = words.count(best.steps.mid) if best.steps else ""
    why = words.listed(sorted({cell.reason for cell in findings.cells if cell.reason}))
    return (
        f"how long it takes to {findings.target} is not known, since steps were not timed"
        f"{f' ({why})' if why else ''}; the fewest are {steps}, at "
        f"{words.batch(findings, best.batch)}"
    )


def _way(findings: Findings, cell: GridCell) -> str:
    size = words.batch(findings, cell.batch)
    if cell.workers == 0:
        return f"one core at {size}"
    return f"{size} with {words.workers(cell.workers)}"


def _at(findings: Findings, cell: GridCell, best: GridCell) -> str:
    if cell.batch == best.batch:
        return "at the same batch"
    return f"at {words.batch(findings, cell.batch)}"


def _cost(cell: GridCell) -> str:
    assert cell.time_s is not None
    text = words.seconds_within(cell.time_s)
    if cell.steps is not None and cell.step_s is not None:
        steps, step_s = words.count(cell.steps.mid), words.seconds(cell.step_s.mid)
        text += f", {steps} steps of {step_s}"
    return text


def _overlap(best: GridCell, other: GridCell) -> str:
    """Is their order open? At the same batch size the pairs decide it, since steps are the same."""
    against = best if best.workers else other
    if best.batch == other.batch and against.verdict:
        is_decided = against.verdict == ("pass" if best.workers else "fail")
        return "" if is_decided else " (their pairs are inconclusive)"
    assert best.time_s is not None
    assert other.time_s is not None
    is_open = best.time_s.high >= other.time_s.low
    return " (their intervals overlap: inconclusive)" if is_open else ""


def _peer_clause(findings: Findings) -> tuple[str, dict[str, Any]]:
    """Of the best run of each peer, and how many workers beat it."""
    if not findings.peers:
        return "; nothing outside this project was measured", {"peers": []}
    clauses, figures = [], []
    for name in dict.fromkeys(cell.peer for cell in findings.peers):
        best = best_of_peer(findings, name)
        called = words.peer(name, best.version)
        if best.time_s is None:
            clauses.append(f"{called} has no time ({best.reason or 'not measured'})")
        else:
            size = words.batch(findings, best.batch)
            took = f"{called} needs {words.seconds(best.time_s)} at {size} on all cores"
            clauses.append(took + _cost_line(findings, best))
        cost = [line for line in findings.cost if line.peer == name]
        figures.append({"peer": name, "best": best, "cost": cost})
    return f"; {'; '.join(clauses)}", {"peers": figures}


def best_of_peer(findings: Findings, name: str) -> PeerCell:
    """The peer's fastest run to the target, or one that says why there is none."""
    cells = [cell for cell in findings.peers if cell.peer == name]
    timed = [cell for cell in cells if cell.time_s is not None]
    return min(timed, key=lambda cell: cell.time_s or 0.0) if timed else cells[0]


def _cost_line(findings: Findings, peer: PeerCell) -> str:
    lines = [line for line in findings.cost if line.peer == peer.peer]
    line = next((one for one in lines if one.batch == peer.batch), next(iter(lines), None))
    if line is None:
        return ""
    if line.workers is None:
        return f", {words.not_beaten(line.tried)}"
    if line.workers == 0:
        return ", which one core beats already"
    return f", which it takes {words.workers(line.workers)} to beat"


def _figures(cell: GridCell) -> dict[str, Any]:
    keys = ("batch", "workers", "steps", "step_s", "time_s")
    return {key: getattr(cell, key) for key in keys}


def _time(cell: GridCell) -> float:
    assert cell.time_s is not None
    return cell.time_s.mid
