"""How long a step takes: a real run on synthetic rows, timed from outside."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distsgd.base.random_keys import Purpose, uniform
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.lab.step_time import StepTime, time_steps
from distsgd.parallel.server.spec import Watch
from distsgd.run.source import prepared_arrays

EMPTY_WORKER = "distsgd.lab.empty_worker:EmptyWorker"
NUM_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Bench:
    """What to time: a ReLU network with softmax cross-entropy under plain SGD.

    Attributes:
        factory: A model of one's own instead, ``module:function``, between the ends of `layers`.
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
    factory: str | None = None

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
            }
            if self.factory is None
            else {"factory": self.factory},
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

    The median over five rounds is given; see `time_steps`.

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
        return _summary(bench, time_steps(config, data, bench.seconds, watch))


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


def _summary(bench: Bench, found: StepTime) -> dict[str, Any]:
    return {
        "peer": "distsgd",
        "layers": list(bench.layers),
        "batch": found.batch,
        "procs": max(1, bench.num_workers),
        "step_us": round(found.seconds * 1e6, 1),
        "samples_per_s": round(found.batch / found.seconds),
        "phases_us": {name: round(value * 1e6, 1) for name, value in found.phases_s.items()},
        "plan": [*found.assignment],
        "statistics": bench.statistics,
    }


def describe(bench: Bench, found: dict[str, Any], say: Callable[[str], None]) -> None:
    """The summary for people."""
    phases = ", ".join(f"{name} {value}" for name, value in found["phases_us"].items())
    say(
        f"{found['step_us']} us a step, {found['samples_per_s']:,} samples/s"
        f" (layers {','.join(map(str, bench.layers))}; batch {found['batch']})"
    )
    say(f"us a step: {phases}")
    say(f"computed by {', '.join(found['plan'])}")
