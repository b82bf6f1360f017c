"""``cells.parquet``: a row for each run and each timing of an experiment, and where it was made."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.base.files import write_bytes_atomic
from distsgd.experiments.findings import Findings, GridCell, LearningCell, RunCell, TimingCell
from distsgd.experiments.plan import LearningKey
from distsgd.statistics.intervals import Interval

PHASES = ("read", "compute", "exchange", "sum", "update", "wait")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("kind", "verdict", "reason")),
        *(pa.field(name, pa.int64()) for name in ("batch", "workers", "seed", "steps")),
        pa.field("name", pa.string()),
        pa.field("peer", pa.string()),
        pa.field("from_step", pa.int64()),
        pa.field("test_loss", pa.float64()),
        *(pa.field(name, pa.int64()) for name in ("samples_used", "samples_to_target", "pairs")),
        *(pa.field(name, pa.float64()) for name in ("rate", "noise_scale", "seconds")),
        *(pa.field(f"step_s{end}", pa.float64()) for end in ("", "_low", "_high")),
        *(pa.field(f"seconds_to_target{end}", pa.float64()) for end in ("", "_low", "_high")),
        *(pa.field(f"{name}_s", pa.float64()) for name in PHASES),
        *(pa.field(name, pa.string()) for name in ("configuration", "digest")),
        *(pa.field(name, pa.string()) for name in ("machine", "versions", "numerics")),
    ]
)


def write_cells(findings: Findings, path: Path) -> None:
    """Write all cells to `path`; blocks. Raises RunError where the operating system refuses."""
    rows = [_place(findings, row) | row for row in _rows(findings)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_bytes_atomic(path, buffer.getbuffer())


def _place(findings: Findings, row: dict[str, Any]) -> dict[str, str]:
    """Machine, versions and numerics of what a row is of; a run does not know its processor."""
    about = findings.elsewhere.get(row.get("name", ""), findings.environment)
    known = [about["processor"], f"{about['cores']} cores"] if "processor" in about else []
    packages = ("distsgd", "python", "numpy")
    return {
        "machine": ", ".join([*known, about["platform"]]),
        "versions": ", ".join(f"{name} {about[name]}" for name in packages),
        "numerics": about["numerics"],
    }


def _rows(findings: Findings) -> Iterator[dict[str, Any]]:
    grid = {(cell.batch, cell.workers): cell for cell in findings.cells}
    yield from map(_of_learning, findings.learning)
    for timing in findings.timings:
        cell = None if timing.is_weak else grid.get((timing.batch, timing.workers))
        yield _of_timing(timing, cell)
    yield from map(_of_run, findings.runs)


def _of_learning(cell: LearningCell) -> dict[str, Any]:
    return {
        "kind": "trial" if cell.is_trial else "learning",
        "name": LearningKey(cell.batch, cell.rate, cell.seed).name,
        "verdict": "" if cell.reason else "reached",
        "reason": cell.reason,
        "batch": cell.batch,
        "seed": cell.seed,
        "steps": cell.steps,
        "samples_used": cell.samples_used,
        "samples_to_target": cell.samples_until,
        "rate": cell.rate,
        "noise_scale": cell.noise_scale,
        "seconds": cell.seconds,
        "configuration": cell.configuration,
        "digest": cell.digest,
    }


def _of_timing(timing: TimingCell, cell: GridCell | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": "weak timing" if timing.is_weak else "timing",
        "verdict": cell.verdict if cell else "",
        "reason": timing.reason,
        "batch": timing.batch,
        "workers": timing.workers,
        "pairs": timing.num_pairs,
        **_ends("step_s", timing.step_s),
        **{f"{name}_s": seconds for name, seconds in timing.phases_s.items()},
    }
    if cell is not None:
        row |= {"rate": cell.rate, **_ends("seconds_to_target", cell.time_s)}
    return row


def _of_run(run: RunCell) -> dict[str, Any]:
    """Its own columns by their names; the seconds that a run in full was to take to the target."""
    names = {field.name for field in fields(run)} - {"expected_s"}
    row = {name: getattr(run, name) for name in names}
    return row | _ends("seconds_to_target", run.expected_s)


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {name: interval.mid, f"{name}_low": interval.low, f"{name}_high": interval.high}
