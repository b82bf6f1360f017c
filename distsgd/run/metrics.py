"""Metrics of a run that trains: what is measured, and Prometheus' text format. No I/O here.

The text is made for node_exporter's textfile collector; where the run is on a cluster, the same
numbers are metrics of Ray, which exports them. Written by `live_files`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from distsgd.parallel.server.spec import Status

HELP = {
    "step": "Updates made",
    "train_loss": "Mean loss of the rows of the present epoch",
    "test_loss": "Loss of the last evaluation",
    "samples_per_second": "Since this session of the run began",
    "workers": "Worker processes that are connected",
    "server_restarts": "How often the server was started anew in this session",
    "phase_seconds": "Where the time of the steps went, since the server was started",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One number; `phase` is its label, "" for none."""

    name: str
    value: float
    phase: str = ""


def samples_of(status: Status) -> Iterator[Sample]:
    """What is measured, without what is not known yet."""
    yield Sample("step", status.step)
    for name, loss in (("train_loss", status.train_loss), ("test_loss", status.test_loss)):
        if loss is not None:
            yield Sample(name, loss)
    if status.seconds:
        yield Sample("samples_per_second", status.num_samples / status.seconds)
    yield Sample("workers", status.num_workers)
    yield Sample("server_restarts", status.incarnation)
    for phase, seconds in asdict(status.phases).items():
        yield Sample("phase_seconds", seconds, phase)


def as_text(run: str, samples: Iterator[Sample]) -> str:
    r"""The samples in Prometheus' text format.

    >>> print(as_text("runs/a", iter([Sample("step", 12), Sample("phase_seconds", 1.5, "read")])))
    # HELP distsgd_step Updates made.
    # TYPE distsgd_step gauge
    distsgd_step{run="runs/a"} 12
    # HELP distsgd_phase_seconds Where the time of the steps went, since the server was started.
    # TYPE distsgd_phase_seconds gauge
    distsgd_phase_seconds{run="runs/a",phase="read"} 1.5
    <BLANKLINE>
    """
    escaped = run.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    lines: dict[str, None] = {}  # In order, each heading once.
    for sample in samples:
        name, labels = f"distsgd_{sample.name}", f'run="{escaped}"'
        lines[f"# HELP {name} {HELP[sample.name]}."] = None
        lines[f"# TYPE {name} gauge"] = None
        labels += f',phase="{sample.phase}"' if sample.phase else ""
        lines[f"{name}{{{labels}}} {_number(sample.value)}"] = None
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
