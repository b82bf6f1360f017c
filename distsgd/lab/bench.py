"""How long a step takes: a real run on synthetic rows, timed from outside."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from distsgd.base.random_keys import Purpose, uniform
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, Interrupted
from distsgd.parallel.pool.autotuner import SERVER
from distsgd.parallel.server.spec import Status, Watch
from distsgd.run import run_files
from distsgd.run.execution import execute
from distsgd.run.source import manifest_of, prepared_arrays
from distsgd.run.spec import RunSpec, make_run_spec

EMPTY_WORKER = "distsgd.lab.empty_worker:EmptyWorker"
NUM_ROWS = 8192
ROUNDS = 5
MIN_ROUND_STEPS = 3
SETTLE_TIMEOUT_S = 30.0
WARM_UP_SHARE = 0.5  # Of the seconds: the plan is found, files are in the cache.
_PHASES = ("read", "compute", "signal", "reduce")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a look at a run showed."""

    step: int
    seconds: float
    status: Status


@dataclass(frozen=True, slots=True)
class Bench:
    """What to time: a ReLU network with softmax cross-entropy under plain SGD.

    Attributes:
        data: A prepared data set with ``layers[0]`` features and ``layers[-1]`` classes; synthetic
            rows unless given.
    """

    layers: tuple[int, ...]
    batch: int
    num_workers: int
    seconds: float
    statistics: Literal["none", "norms"] = "norms"
    overrides: tuple[str, ...] = ()
    data: Path | None = None

    def config(self) -> TrainConfig:
        """The run that is timed. Raises ConfigError."""
        if len(self.layers) < 2 or min(self.layers) < 1:
            sizes = ",".join(map(str, self.layers))
            rule = "must be at least two sizes of 1 or more, as 784,128,10 (set --layers)"
            raise ConfigError([f"layers are {sizes}; {rule}"])
        hidden = [{"type": "dense", "units": n, "activation": "relu"} for n in self.layers[1:-1]]
        values: dict[str, Any] = {
            "data": {"path": "synthetic", "label": "label", "standardise": "none"},
            "model": {
                "layers": [*hidden, {"type": "dense", "units": self.layers[-1]}],
                "loss": "softmax_cross_entropy",
            },
            "optimizer": {"learning_rate": 0.01},
            "batch": {"size": self.batch},
            "train": {"steps": 1 << 40},
            "parallel": {"workers": self.num_workers},
            "statistics": {"per_sample": self.statistics == "norms"},
            "checkpoint": {"every_s": 0.0},
        }
        return TrainConfig.from_dict(values).with_overrides(self.overrides)


def run_bench(bench: Bench, watch: Watch | None = None) -> dict[str, Any]:
    """Time steps of a run; blocks for about 1.5 times `bench.seconds`, and the start of Ray.

    Everything is as in a run: the server and its workers, prepared shards, sampling, history,
    digests and statistics. Steps are counted from outside; the median over five rounds is given.

    Args:
        bench: What to time.
        watch: Looks on as well, and may end it.

    Raises:
        ConfigError: The sizes or overrides cannot be run, or leave nothing to time.
        DataError: The rows of `bench.data` cannot be used.
        ClusterError: Ray or a worker is missing.
        Interrupted: Ctrl-C ended it.
    """
    config = bench.config()
    with tempfile.TemporaryDirectory(prefix="distsgd-bench-") as directory:
        place = Path(directory)
        num_rows = max(NUM_ROWS, 2 * bench.batch)
        data = bench.data or prepare_synthetic(bench, num_rows, place / "data")
        run_spec = make_run_spec(config, data, manifest_of(data))
        run = run_files.begin(place / "run", run_spec, None)
        look = _Look(bench.seconds, watch)
        outcome = execute(run, run_spec, look)
    if outcome.stopped_by == "request" and not look.has_asked:
        raise Interrupted("interrupted before enough steps were timed; nothing was measured")
    return _summary(bench, run_spec, look.readings)


def empty_bench(
    *, num_workers: int, num_parameters: int = 100_000, num_blocks: int | None = None
) -> Bench:
    """A step without computing: weights out, a sum back from each worker, the update; 1 s of it.

    Args:
        num_workers: All of them work in every step.
        num_parameters: Ten more than these, which are a multiple of 100.
        num_blocks: Of a step; one a worker unless given. Where a worker's blocks are no whole
            subtree it has several sums, as in a run.
    """
    num_blocks = num_blocks or num_workers
    return Bench(
        (89, num_parameters // 100, 10),
        num_blocks,
        num_workers,
        1.0,
        overrides=(
            "parallel.lanes=1",
            "parallel.block_rows=1",
            "parallel.assignment=all",
            f"parallel.worker={EMPTY_WORKER}",
        ),
    )


def prepare_synthetic(bench: Bench, num_rows: int, out: Path) -> Path:
    """Prepare rows for `bench` into `out` by the same way as a file's; returns `out`."""
    return prepared_arrays(bench.config(), synthetic(num_rows, bench.layers), out)


def synthetic(num_rows: int, layers: tuple[int, ...]) -> tuple[Any, Any]:
    """Rows of uniform numbers in [-1, 1), classes in turn."""
    x = uniform(0, Purpose.PROBE, count=num_rows * layers[0]).reshape(num_rows, layers[0])
    return (2.0 * x - 1.0).astype(np.float32), np.arange(num_rows) % layers[-1]


class _Look:
    """Looks on, keeps what it saw after the warm-up, and stops the run when it has seen enough."""

    def __init__(self, seconds: float, watch: Watch | None) -> None:
        self._warm_up_s = WARM_UP_SHARE * seconds
        self._seconds = seconds
        self._watch = watch
        self.readings: list[Reading] = []
        self.has_asked = False

    def __call__(self, status: Status) -> bool:
        """Keep what is seen; should the run stop now?"""
        self.has_asked = self.has_asked or self._is_enough(status)
        return self.has_asked

    def _is_enough(self, status: Status) -> bool:
        if self._watch is not None and self._watch(status):
            return True
        if status.phase != "training" or status.seconds < self._warm_up_s:
            return False
        if not (self.readings or status.is_settled or status.seconds > SETTLE_TIMEOUT_S):
            return False
        self.readings.append(Reading(status.step, status.seconds, status))
        first, last = self.readings[0], self.readings[-1]
        enough_steps = last.step - first.step >= ROUNDS * MIN_ROUND_STEPS
        return last.seconds - first.seconds >= self._seconds and enough_steps


def _summary(bench: Bench, run_spec: RunSpec, readings: list[Reading]) -> dict[str, Any]:
    if len({reading.step for reading in readings}) < 2:
        raise ConfigError(
            ["the run ended before a step was timed (leave [train] steps and epochs as they are)"]
        )
    step_s = _median_step_s(readings)
    first, last = readings[0].status, readings[-1].status
    steps = last.step - first.step
    phases = {
        name: (getattr(last.phases, name) - getattr(first.phases, name)) / steps * 1e6
        for name in _PHASES
    }
    mean_us = (last.seconds - first.seconds) / steps * 1e6
    return {
        "peer": "distsgd",
        "layers": list(bench.layers),
        "batch": run_spec.sampler.batch_rows,
        "procs": max(1, bench.num_workers),
        "step_us": round(step_s * 1e6, 1),
        "samples_per_s": round(run_spec.sampler.batch_rows / step_s),
        "phases_us": {
            **{name: round(value, 1) for name, value in phases.items()},
            "update": round(mean_us - sum(phases.values()), 1),
            "wait": round((last.phases.idle - first.phases.idle) / steps * 1e6, 1),
        },
        "plan": ["server" if worker == SERVER else f"worker {worker}" for worker in last.plan],
        "statistics": bench.statistics,
    }


def _median_step_s(readings: list[Reading]) -> float:
    """The median over the rounds of the seconds a step takes."""
    cuts = [len(readings) * i // ROUNDS for i in range(ROUNDS)] + [len(readings) - 1]
    rounds = [
        (readings[b].seconds - readings[a].seconds) / (readings[b].step - readings[a].step)
        for a, b in itertools.pairwise(cuts)
        if readings[b].step > readings[a].step
    ]
    return median(rounds)


def describe(bench: Bench, found: dict[str, Any], say: Callable[[str], None]) -> None:
    """The summary for people."""
    phases = ", ".join(f"{name} {value}" for name, value in found["phases_us"].items())
    say(
        f"{found['step_us']} us a step, {found['samples_per_s']:,} samples/s"
        f" (layers {','.join(map(str, bench.layers))}; batch {found['batch']})"
    )
    say(f"us a step: {phases}")
    say(f"computed by {', '.join(found['plan'])}")
