"""Training with another library, and timing it: the loop that all of them share.

A peer gets the same standardised rows, network, rule, batch size and seeds, and the rate that was
chosen for the runs of this project; it draws a new permutation each epoch, and is evaluated after
the same steps. Its first weights are its own, of the same distribution where it lets us choose.
Only its steps are timed, none of its evaluations, and not those before the first of them, in which
it compiles; where they were few, some that follow the target are timed as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsgd.data.dataset import DataSet, Rows

TIMED_S = 0.5  # Of steps behind the target, at most.


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
        """Mean loss and accuracy of the held-out rows; a loss that is none where it diverged."""
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
        JSON values: step_s (median over the evaluations), steps and time_s to the target (null
        where it was not met), curve of (samples, metric), is_diverged.
    """
    curve: list[tuple[int, float]] = []
    times: list[float] = []
    steps, samples, is_met, is_diverged = 0, 0, False, False
    left = _parts(task, num_rows)
    for parts in left:
        times.append(_step_seconds(task, peer, parts))
        steps += sum(-(-len(rows) // task.batch) for rows in parts)
        samples += sum(map(len, parts))
        loss, accuracy = peer.evaluate()
        if is_diverged := not math.isfinite(loss):
            break
        value = accuracy if task.metric == "test_accuracy" else loss
        curve.append((samples, float(value)))
        if is_met := value >= task.target if task.at_least else value <= task.target:
            break
    timed_from = time.perf_counter()
    while is_met and time.perf_counter() - timed_from < TIMED_S and (parts := next(left, [])):
        times.append(_step_seconds(task, peer, parts))
    step_s = median(times[1:] or times)
    return {
        "version": peer.version,
        "step_s": step_s,
        "steps": steps if is_met else None,
        "time_s": steps * step_s if is_met else None,
        "curve": curve,
        "is_diverged": is_diverged,
    }


def _step_seconds(task: PeerTask, peer: Peer, parts: list[NDArray[np.int64]]) -> float:
    """Of a step, the mean over those of these rows."""
    started = time.perf_counter()
    for rows in parts:
        peer.train(rows)
    return (time.perf_counter() - started) / sum(-(-len(rows) // task.batch) for rows in parts)


def _parts(task: PeerTask, num_rows: int) -> Iterator[list[NDArray[np.int64]]]:
    """Rows of the steps up to each evaluation, those of two epochs apart.

    An evaluation is due after the step that reaches a multiple of ``task.grid_samples``, and after
    the last.
    """
    chance = np.random.default_rng(task.seed)
    parts, due = [], task.grid_samples
    for before in range(0, task.most_samples, num_rows):
        order, first = chance.permutation(num_rows), 0
        while first < num_rows:
            last = min(num_rows, -(-(due - before) // task.batch) * task.batch)
            parts.append(order[first:last])
            first = last
            if before + last >= due:
                yield parts
                parts, due = [], ((before + last) // task.grid_samples + 1) * task.grid_samples
    if parts:
        yield parts
