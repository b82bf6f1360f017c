"""Metrics of a run that trains, about once a second: a text file in the run, and Ray's metrics.

The file is in Prometheus' text format, made for node_exporter's textfile collector; where the run
is on a cluster, the same numbers are metrics of Ray, which exports them. Written by the process
that called `Trainer.fit`, never by the server: no input to the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from distsgd.base.files import replace_text
from distsgd.parallel.launch.ray_metrics import RayMetrics
from distsgd.parallel.server.spec import Status

EVERY_S = 1.0
_HELP = {
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
        lines[f"# HELP {name} {_HELP[sample.name]}."] = None
        lines[f"# TYPE {name} gauge"] = None
        labels += f',phase="{sample.phase}"' if sample.phase else ""
        lines[f"{name}{{{labels}}} {_number(sample.value)}"] = None
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"


class MetricsWatch:
    """Takes the server's status in, and tells it on now and then.

    Args:
        run: What the run is called, for the label.
        path: The file; None: none is written.
        say: Called once where the file cannot be written.
    """

    def __init__(
        self,
        run: str,
        path: Path | None,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._path, self._say, self._clock = run, path, say, clock
        self._ray = RayMetrics(run, {f"distsgd_{name}": text for name, text in _HELP.items()})
        self._told_s = -math.inf

    def __call__(self, status: Status) -> None:
        """Called often; what comes within a second of the last is passed over, but for the end."""
        if not status.num_samples:  # A start that fails leaves the file as it was.
            return
        if status.phase != "ended" and self._clock() - self._told_s < EVERY_S:
            return
        self._told_s = self._clock()
        for sample in samples_of(status):
            self._ray.set(f"distsgd_{sample.name}", sample.value, sample.phase)
        if self._path is not None:
            self._write(self._path, as_text(self._run, samples_of(status)))

    def _write(self, path: Path, text: str) -> None:
        try:
            replace_text(path, text)
        except OSError as error:
            self._path = None
            self._say(f"warning: {path} is not written any more: {error.strerror}")
