"""``cells.parquet``: a row for each learning run and each timing of an experiment."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.base.files import write_bytes_atomic
from distsgd.experiments.findings import Findings, GridCell, LearningCell, TimingCell
from distsgd.statistics.intervals import Interval

PHASES = ("read", "compute", "exchange", "sum", "update", "wait")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("kind", "verdict", "reason")),
        *(pa.field(name, pa.int64()) for name in ("batch", "workers", "seed", "steps")),
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
    about = findings.environment
    common = {
        "machine": f"{about['processor']}, {about['cores']} cores, {about['platform']}",
        "versions": f"distsgd {about['distsgd']}, python {about['python']}, numpy {about['numpy']}",
        "numerics": about["numerics"],
    }
    rows = [common | row for row in _rows(findings)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_bytes_atomic(path, buffer.getbuffer())


def _rows(findings: Findings) -> Iterator[dict[str, Any]]:
    grid = {(cell.batch, cell.workers): cell for cell in findings.cells}
    yield from map(_of_learning, findings.learning)
    for timing in findings.timings:
        cell = None if timing.is_weak else grid.get((timing.batch, timing.workers))
        yield _of_timing(timing, cell)


def _of_learning(cell: LearningCell) -> dict[str, Any]:
    return {
        "kind": "trial" if cell.is_trial else "learning",
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


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {name: interval.mid, f"{name}_low": interval.low, f"{name}_high": interval.high}
