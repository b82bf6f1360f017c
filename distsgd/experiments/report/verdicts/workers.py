"""What a second worker bought, at which batch sizes, and why: ratios and phases. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distsgd.experiments.findings import Findings, TimingCell
from distsgd.experiments.report import words
from distsgd.experiments.report.verdicts.verdict import Verdict
from distsgd.statistics.intervals import Interval


def second_worker(findings: Findings) -> int | None:
    """The number of workers that stands for "a second worker": 2, or the next above it."""
    return min((number for number in findings.workers if number >= 2), default=None)


def strong(findings: Findings, workers: int) -> list[TimingCell]:
    """Timings of a number of workers at the same batch as the baseline, by batch."""
    cells = [one for one in findings.timings if one.workers == workers and not one.is_weak]
    return sorted(cells, key=lambda cell: cell.batch)


def most_processes(findings: Findings, workers: int | None = None) -> int:
    """The most processes that computed a step, with that many workers or any; 0: none was timed."""
    cells = [it for it in findings.timings if not it.is_weak and workers in {None, it.workers}]
    return max((len(it.assignment) for it in cells), default=0)


def standing(speed_up: Interval) -> str:
    """Of a speed-up with its interval: "faster", "slower" or "inconclusive"."""
    if speed_up.low > 1.0:
        return "faster"
    return "slower" if speed_up.high < 1.0 else "inconclusive"


def bought(findings: Findings) -> Verdict:
    """At which batch sizes a second worker is faster than one core, slower, or neither."""
    number = second_worker(findings)
    if number is None:
        text = "what a second worker buys was not measured: the experiment asked for no more than "
        return Verdict(
            words.sentence(text + words.workers(max(findings.workers, default=0))),
            {"workers": list(findings.workers)},
        )
    who = "a second worker" if number == 2 else words.workers(number)
    cells = strong(findings, number)
    groups = grouped(cells)
    figures = {
        "workers": number,
        "faster": [_speed_figures(cell) for cell in groups["faster"]],
        "slower": [_speed_figures(cell) for cell in groups["slower"]],
        "inconclusive": [_speed_figures(cell) for cell in groups["inconclusive"]],
    }
    clauses = []
    if groups["faster"]:
        pays = "pays" if number == 2 else "pay"
        clauses.append(f"{who} {pays} at {_gains(findings, groups['faster'])}")
    elif any(groups.values()):
        sizes = words.batch_sizes(sum(map(len, groups.values())))
        clauses.append(f"{who} {'is' if number == 2 else 'are'} clearly faster at none of {sizes}")
    else:
        clauses.append(f"{who} was not timed at any batch size")
    if groups["slower"]:
        clauses.append(f"time is lost at {_losses(findings, groups['slower'])}")
    if groups["inconclusive"]:
        clauses.append(f"the pairs are inconclusive at {_gains(findings, groups['inconclusive'])}")
    text = "; ".join(clauses) + _comparisons(findings) * any(groups.values())
    if findings.num_cores < number:
        text += f", on a machine with {words.cores(findings.num_cores)}"
    return Verdict(words.sentence(text), figures)


def _comparisons(findings: Findings) -> str:
    """How many were looked at: of so many some are decided by chance."""
    number = sum(cell.speed_up is not None for cell in findings.timings)
    if number < 2:
        return ""
    return f" ({number} comparisons with one core were made in all, each at 95 %)"


def grouped(cells: Sequence[TimingCell]) -> dict[str, list[TimingCell]]:
    """The timings by their standing."""
    groups: dict[str, list[TimingCell]] = {"faster": [], "slower": [], "inconclusive": []}
    for cell in cells:
        if cell.speed_up is not None:
            groups[standing(cell.speed_up)].append(cell)
    return groups


def _gains(findings: Findings, cells: Sequence[TimingCell]) -> str:
    """Where, and how many times one core's speed at the first and the last of them."""
    told = []
    for cell in _ends(cells):
        assert cell.speed_up is not None
        base = f"one core's {words.seconds(cell.baseline_s.mid)}" if cell.baseline_s else "one core"
        ratio = f"{cell.speed_up.mid:.2f} times ({words.ratio_within(cell.speed_up)}) as fast"
        told.append(f"{ratio} as {base}{_where(findings, cell, cells)}")
    sizes = words.batches(findings, [cell.batch for cell in cells])
    return f"{sizes}: a step is {words.listed(told)}"


def _losses(findings: Findings, cells: Sequence[TimingCell]) -> str:
    """Where, and the seconds a step of both at the first and the last of them."""
    told = []
    for cell in _ends(cells):
        took = words.seconds(cell.step_s.mid) if cell.step_s else "more"
        base = words.seconds(cell.baseline_s.mid) if cell.baseline_s else "that"
        told.append(f"{took} instead of one core's {base}{_where(findings, cell, cells)}")
    sizes = words.batches(findings, [cell.batch for cell in cells])
    return f"{sizes}: a step takes {words.listed(told)}"


def _ends(cells: Sequence[TimingCell]) -> list[TimingCell]:
    return [cells[0]] if len(cells) == 1 else [cells[0], cells[-1]]


def _where(findings: Findings, cell: TimingCell, cells: Sequence[TimingCell]) -> str:
    return "" if len(cells) == 1 else f" at {words.batch(findings, cell.batch)}"


def why(findings: Findings) -> Verdict:
    """Where a step goes at the batch sizes that gain least and most; what more workers add."""
    number = second_worker(findings)
    known = (
        [] if number is None else [c for c in strong(findings, number) if shares(c) and c.step_s]
    )
    if number is None or not known:
        return _why_one_core(findings)
    worst = min(known, key=lambda cell: cell.speed_up.mid if cell.speed_up else 1.0)
    best = max(known, key=lambda cell: cell.speed_up.mid if cell.speed_up else 1.0)
    ends = [worst] if worst is best else [worst, best]
    clauses = [_step_clause(findings, cell) for cell in ends]
    text = f"the step says why: {'; '.join(clauses)}"
    more, figures = _more_workers(findings, number)
    figures["steps"] = [_step_figures(cell) for cell in ends]
    return Verdict(words.sentence(text + more), figures)


def _step_clause(findings: Findings, cell: TimingCell) -> str:
    size, who = words.batch(findings, cell.batch), words.workers(cell.workers)
    took = words.seconds(cell.step_s.mid) if cell.step_s else "an unknown time"
    base = f" (one core: {words.seconds(cell.baseline_s.mid)})" if cell.baseline_s else ""
    mixed = f" ({words.plan(cell.plans)} pairs)" if len(cell.plans) > 1 else ""
    if not any(name.startswith("worker") for name in cell.assignment):
        left = f"the plan left the step to the server{mixed}"
        return f"at {size} {left}, {took}{base}, while {who} rested"
    parts = [
        f"{words.percent(share)} {words.PHASES.get(name, name)}"
        for name, share in shares(cell)[:2]
        if share >= 0.1
    ]
    wait = waiting(cell)
    idle = ""
    if wait is not None:
        idle = f", while its processes waited {words.percent(wait)} of it for the slowest of them"
    return f"at {size} a step of {who}{mixed} takes {took}{base}, {words.listed(parts)}{idle}"


def shares(cell: TimingCell) -> list[tuple[str, float]]:
    """The phases that fill a step by their share of it, the largest first."""
    filling = {name: it for name, it in cell.phases_s.items() if name != "wait" and it > 0.0}
    whole = sum(filling.values())
    return sorted(((name, it / whole) for name, it in filling.items()), key=lambda part: -part[1])


def waiting(cell: TimingCell) -> float | None:
    """The share of a step for which its processes waited for the slowest; None for one process."""
    whole = sum(it for name, it in cell.phases_s.items() if name != "wait")
    if whole <= 0.0 or len(cell.assignment) < 2:
        return None
    return cell.phases_s.get("wait", 0.0) / whole


def _why_one_core(findings: Findings) -> Verdict:
    known = [cell for cell in strong(findings, 0) if shares(cell) and cell.step_s]
    if not known:
        return Verdict("Where a step spends its time was not measured.", {"steps": []})
    cell = known[-1]
    name, share = shares(cell)[0]
    took = words.seconds(cell.step_s.mid) if cell.step_s else ""
    size = words.batch(findings, cell.batch)
    text = f"on one core a step at {size} takes {took}, {words.percent(share)} of it "
    text += words.PHASES.get(name, name)
    return Verdict(words.sentence(text), {"steps": [_step_figures(cell)]})


def _more_workers(findings: Findings, number: int) -> tuple[str, dict[str, Any]]:
    """Of each larger number of workers: where it is clearly faster than the one before."""
    clauses, figures = [], {}
    before = {cell.batch: cell for cell in strong(findings, number)}
    for more in sorted(one for one in findings.workers if one > number):
        cells = {cell.batch: cell for cell in strong(findings, more)}
        gained = [size for size, cell in cells.items() if _is_clearly(cell, before.get(size))]
        figures[f"faster_with_{more}_than_{number}"] = gained
        if gained:
            clauses.append(
                f"{more} workers are clearly faster than {number} at "
                f"{words.batches(findings, gained)}"
            )
        else:
            sizes = words.batch_sizes(len(cells))
            clauses.append(f"{more} workers are clearly faster than {number} at none of {sizes}")
        before, number = cells, more
    return "".join(f"; {clause}" for clause in clauses), figures


def _is_clearly(cell: TimingCell, before: TimingCell | None) -> bool:
    if before is None or cell.speed_up is None or before.speed_up is None:
        return False
    return cell.speed_up.low > before.speed_up.high


def _speed_figures(cell: TimingCell) -> dict[str, Any]:
    keys = ("batch", "speed_up", "step_s", "baseline_s", "num_pairs")
    return {key: getattr(cell, key) for key in keys}


def _step_figures(cell: TimingCell) -> dict[str, Any]:
    figures = {"workers": cell.workers, **_speed_figures(cell), "phases_s": cell.phases_s}
    figures |= {"shares": dict(shares(cell)), "waiting": waiting(cell)}
    return {**figures, "plans": list(cell.plans)}
