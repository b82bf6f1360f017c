"""Where a run is, as plain values: what `distsgd status` shows and its ``--json`` says."""

from __future__ import annotations

import math
from typing import Any

from distsgd.parallel.server.spec import Status

# All of it, where nothing is known.
NOTHING: dict[str, Any] = {
    "run": None,
    "status": None,
    "step": 0,
    "total_steps": None,
    "epoch": 0.0,
    "train_loss": None,
    "test_loss": None,
    "test_accuracy": None,
    "samples_per_s": 0.0,
    "num_workers": 0,
    "wanted_workers": 0,
    "no_room": None,
    "nodes": {},
    "server_restarts": 0,
    "worker_restarts": 0,
}


def report(run: str, total_steps: int, status: Status) -> dict[str, Any]:
    """Where `run` is; a loss is None where there is none, or it is not finite."""
    return {
        "run": run,
        "status": status.phase,
        "step": status.step,
        "total_steps": total_steps,
        "epoch": status.epoch,
        "train_loss": finite(status.train_loss),
        "test_loss": finite(status.test_loss),
        "test_accuracy": status.test_accuracy,
        "samples_per_s": status.num_samples / status.seconds if status.seconds else 0.0,
        "num_workers": status.num_workers,
        "wanted_workers": status.num_expected,
        "no_room": status.lack
        if status.num_workers < status.num_expected and status.lack
        else None,
        "nodes": _by_node(status),
        "server_restarts": status.incarnation,
        "worker_restarts": status.num_rejoined,
    }


def _by_node(status: Status) -> dict[str, list[int]]:
    """The numbers of the workers that are connected, by the name of their node."""
    found: dict[str, list[int]] = {}
    for worker, node in zip(status.members, status.nodes, strict=True):
        found.setdefault(node, []).append(worker)
    return found


def finite(value: float | None) -> float | None:
    """A loss as it is told: None where there is none, or it is no finite number."""
    return value if value is not None and math.isfinite(value) else None
