"""Training with another library, and timing it: the loop that all of them share.

A peer gets the same standardised rows, network, rule, batch size and rate, draws a new permutation
each epoch, and is evaluated after the same samples. Its first weights are its own. Only its steps
are timed, none of its evaluations, and not the first chunk of steps, in which it compiles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsgd.data.dataset import DataSet, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTask:
    """What a peer is to train.

    Attributes:
        sizes: Of the dense layers, the input first.
        activation: Of the hidden layers: "relu", "tanh" or "sigmoid".
        momentum: 0 for plain SGD.
        data: The prepared data set.
        metric: "test_accuracy" or "test_loss".
    """

    sizes: tuple[int, ...]
    activation: str
    momentum: float
    nesterov: bool
    batch: int
    rate: float
    seed: int
    data: Path
    metric: str
    at_least: bool
    target: float
    grid_samples: int
    most_samples: int
    threads: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PeerTask:
        """What ``dataclasses.asdict`` gave, by way of JSON."""
        changed = {"sizes": tuple(values["sizes"]), "data": Path(values["data"])}
        return cls(**{**values, **changed})


class Peer(Protocol):
    """A library that trains a network of dense layers with softmax cross-entropy."""

    version: str

    def train(self, rows: NDArray[np.int64]) -> None:
        """Make steps of the task's batch size over these rows, in order; returns when made.

        The last one may be shorter.
        """
        ...

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy of the held-out rows."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in memory: features ``[N, I]`` of float32, classes ``[N]`` of int64."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, num_features: int) -> Table:
        """All rows of a split."""
        x = np.empty((rows.num_rows, num_features), np.float32)
        y = np.empty(rows.num_rows, np.int64)
        rows.gather_range_inplace(0, rows.num_rows, x_NI=x, target=y, squared_norms_N=None)
        return cls(x, y)


def tables(task: PeerTask) -> tuple[Table, Table]:
    """Training and held-out rows."""
    data = DataSet.open(task.data)
    return Table.of(data.train, task.sizes[0]), Table.of(data.test, task.sizes[0])


def train_to_target(task: PeerTask, peer: Peer, num_rows: int) -> dict[str, Any]:
    """Train until an evaluation meets the target, or all samples are used. Blocks.

    Returns:
        JSON values: step_s (median over the chunks between evaluations), steps and time_s to the
        target (null where it was not met), curve of (samples, metric).
    """
    curve: list[tuple[int, float]] = []
    times: list[float] = []
    steps, samples, is_met = 0, 0, False
    for rows in _chunks(task, num_rows):
        started = time.perf_counter()
        peer.train(rows)
        made = -(-len(rows) // task.batch)
        times.append((time.perf_counter() - started) / made)
        steps, samples = steps + made, samples + len(rows)
        loss, accuracy = peer.evaluate()
        value = accuracy if task.metric == "test_accuracy" else loss
        curve.append((samples, float(value)))
        is_met = value >= task.target if task.at_least else value <= task.target
        if is_met or not np.isfinite(loss):
            break
    step_s = median(times[1:] or times)
    return {
        "version": peer.version,
        "step_s": step_s,
        "steps": steps if is_met else None,
        "time_s": steps * step_s if is_met else None,
        "curve": curve,
    }


def _chunks(task: PeerTask, num_rows: int) -> Iterator[NDArray[np.int64]]:
    """Rows of the steps between two evaluations, epoch after epoch."""
    chance = np.random.default_rng(task.seed)
    a_chunk = -(-task.grid_samples // task.batch) * task.batch
    for _ in range(-(-task.most_samples // num_rows)):
        order = chance.permutation(num_rows)
        for first in range(0, num_rows, a_chunk):
            yield order[first : first + a_chunk]
