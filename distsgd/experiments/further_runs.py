"""The runs of an experiment besides its learning runs, each by itself: `Findings.runs`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

from distsgd.experiments.branching import Branching
from distsgd.experiments.collect import Collected
from distsgd.experiments.findings import RunCell
from distsgd.experiments.peer_runs import PeerRuns
from distsgd.store.run_directory import RunDirectory


def further_runs(found: Collected) -> tuple[RunCell, ...]:
    """All that are wanted, made or not; what is missing with its reason."""
    return (*_full(found), *_branches(found), *_peers(found))


def _full(found: Collected) -> Iterator[RunCell]:
    for run in (*found.full_runs(), *found.checks()):
        key, is_made = run.key, run.num_digests > 0
        holds = run.same_bits if key.is_check else run.holds
        yield RunCell(
            kind="check" if key.is_check else "full",
            name=key.name,
            batch=key.learning.batch,
            rate=key.learning.rate,
            seed=key.learning.seed,
            workers=key.workers,
            seconds=run.seconds,
            expected_s=None if key.is_check else run.expected,
            verdict=("pass" if holds else "fail") if is_made else "",
            reason="" if is_made else found.failed.get(key.name, "out of budget"),
            **_recorded(found.directory / key.name),
        )


def _branches(found: Collected) -> Iterator[RunCell]:
    branching = Branching(found.grid, found.directory, None)
    for branch in branching.read(found.chosen()):
        key, loss, reason = branch.key, branch.loss, ""
        if loss is None:
            reason = found.failed.get(key.name, "out of budget")
        elif math.isinf(loss):
            loss, reason = None, "diverged"
        yield RunCell(
            kind="branch",
            name=key.name,
            batch=key.batch,
            rate=branching.rate(key),
            seed=key.trunk.seed,
            from_step=key.step,
            test_loss=loss,
            reason=reason,
            **_recorded(found.directory / key.name),
        )


def _peers(found: Collected) -> Iterator[RunCell]:
    for run in PeerRuns(found.grid, found.directory).runs(found.chosen(), found.failed):
        is_reached = run.steps is not None and run.step_s is not None
        yield RunCell(
            kind="peer",
            name=run.key.name,
            peer=f"{run.key.peer} {run.version}".strip(),
            batch=run.key.batch,
            rate=run.key.rate,
            seed=run.key.seed,
            steps=run.steps,
            seconds=(run.steps or 0) * (run.step_s or 0.0) if is_reached else None,
            step_s=run.step_s,
            verdict="reached" if is_reached else "",
            reason=run.reason,
        )


def _recorded(place: Path) -> dict[str, Any]:
    """What a run that has ended says of its steps, its configuration and its weights."""
    run = RunDirectory.open(place) if RunDirectory.is_run(place) else None
    if run is None or not run.result_path.is_file():
        return {}
    result = run.read_json(run.result_path)
    return {
        "steps": result.get("steps"),
        "configuration": blake3(run.config_path.read_bytes()).hexdigest()[:16],
        "digest": result.get("weights_digest", ""),
    }
