"""What larger batches bought in steps, and the critical batch size by three ways. Pure."""

from __future__ import annotations

from distsgd.experiments.findings import CriticalBatch, Findings, GridCell, mean_rows
from distsgd.experiments.report import words
from distsgd.experiments.report.verdicts.verdict import Verdict


def learned(findings: Findings) -> list[GridCell]:
    """A cell for each batch size that reached the target, by batch; steps know no workers."""
    cells: dict[int, GridCell] = {}
    for cell in findings.cells:
        if cell.steps is not None:
            cells.setdefault(cell.batch, cell)
    return [cells[size] for size in sorted(cells)]


def steps_saved(findings: Findings) -> Verdict:
    """The sentence; where fewer than two batch sizes reached the target, that."""
    cells = learned(findings)
    figures = {
        "steps": [{"batch": cell.batch, "steps": cell.steps} for cell in cells],
        "critical": list(findings.critical),
    }
    ways = _ways(findings)
    if not cells:
        text = f"what a larger batch saves in steps is not known: none reached the target{ways}"
        return Verdict(words.sentence(text), figures)
    first, last = cells[0], cells[-1]
    if first is last:
        only = words.batch(findings, first.batch)
        text = f"only {only} reached the target, in {_steps(first)} steps"
        text += f", so what a larger batch saves is not known{ways}"
        return Verdict(words.sentence(text), figures)
    assert first.steps is not None
    assert last.steps is not None
    first_rows, last_rows = (mean_rows(cell.batch, findings.num_rows) for cell in (first, last))
    more, fewer = last_rows / first_rows, first.steps.mid / last.steps.mid
    figures |= {"rows_ratio": more, "steps_ratio": fewer}
    text = (
        f"from {words.batch(findings, first.batch)} to {words.batch(findings, last.batch)}, "
        f"{words.times(more)} times the rows a step, the steps to target fall from "
        f"{_steps(first)} to {_steps(last)}, {words.times(fewer)} times fewer{ways}"
    )
    return Verdict(words.sentence(text), figures)


def _steps(cell: GridCell) -> str:
    return words.count(cell.steps.mid) if cell.steps else "an unknown number"


def _ways(findings: Findings) -> str:
    known = [way for way in findings.critical if way.batch is not None]
    if not known:
        whys = [f"{way.way}: {_shortly(way.reason)}" for way in findings.critical]
        why = "; ".join(whys)
        return f"; a critical batch size was not found ({why or 'not looked for'})"
    told = [f"{words.critical(way)} by {_called(way)} ({_where(findings, way)})" for way in known]
    return f"; the critical batch size is {words.listed(told)}"


def _shortly(reason: str) -> str:
    """The beginning of a reason, which in full stands with the picture."""
    return reason.split(";", maxsplit=1)[0].split(" (", maxsplit=1)[0]


def _called(way: CriticalBatch) -> str:
    return f"the {way.way}" if way.way != "branching" else way.way


def _where(findings: Findings, way: CriticalBatch) -> str:
    """Where in training a way looks; each looks elsewhere, so that they need not be equal."""
    if way.way == "hyperbola":
        return "the whole way to the target"
    if way.way == "branching":
        ends = "two sizes that were tried" if way.batch and way.batch.is_bounded else "the largest"
        return f"one step of a run; {ends}"
    of_batch = f" at {words.batch(findings, way.of_batch)}" if way.of_batch else ""
    return f"the last third of the runs{of_batch}"
