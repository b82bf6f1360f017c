"""What planted files of an experiment are told as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distsgd.base.files import write_json_atomic
from distsgd.experiments.collect import Collected
from distsgd.experiments.findings import TimingCell
from distsgd.experiments.plan import Grid, TimingKey
from tests.unit.experiments.rows import NUM_ROWS, plan_of

SERVER = ("server",)


def step(batch: int, seconds: float, assignment: Sequence[str] = SERVER) -> dict[str, Any]:
    """A timing as it is kept, all of its step computing."""
    phases_s = dict.fromkeys(("read", "signal", "reduce", "update", "wait"), 0.0)
    return {
        "batch": batch,
        "seconds": seconds,
        "phases_s": phases_s | {"compute": seconds},
        "assignment": list(assignment),
    }


def collected(
    place: Path, key: TimingKey, pairs: Sequence[tuple[dict[str, Any], Any]]
) -> Collected:
    """An experiment that holds these pairs of baseline and candidate of `key`, and nothing else."""
    (place / key.name).mkdir(parents=True)
    for number, (baseline, candidate) in enumerate(pairs):
        pair = {"baseline": baseline, "candidate": candidate}
        write_json_atomic(place / key.name / f"pair-{number:03d}.json", pair)
    plan = plan_of(place / "rows", batches=(key.base_batch,), workers=(0, 1, 2), is_weak=True)
    return Collected(Grid.of(plan, NUM_ROWS), place, {})


def timed(place: Path, key: TimingKey, pairs: Sequence[tuple[dict[str, Any], Any]]) -> TimingCell:
    """The cell of `key` in such an experiment."""
    cells = collected(place, key, pairs).timings()
    wanted = (key.batch, key.workers, key.is_weak)
    return next(it for it in cells if (it.batch, it.workers, it.is_weak) == wanted)


def samples_per_s(batch: int, step_s: float) -> float:
    """Of a whole epoch, mini-batch by mini-batch."""
    sizes = [min(batch, NUM_ROWS - first) for first in range(0, NUM_ROWS, batch)]
    return sum(sizes) / (step_s * len(sizes))


def test_samples_a_second_of_batches_with_a_short_last_one_are_those_of_an_epoch(
    tmp_path: Path,
) -> None:
    key = TimingKey(200, 2, 100)
    assert key.is_weak
    cell = timed(tmp_path, key, [(step(100, 1.0), step(200, 1.5))] * 5)
    assert cell.speed_up is not None
    assert cell.speed_up.mid == pytest.approx(samples_per_s(200, 1.5) / samples_per_s(100, 1.0))
    assert cell.speed_up.mid == pytest.approx(1.0)


def test_phases_are_those_of_the_commonest_plan_and_all_plans_are_counted(tmp_path: Path) -> None:
    shared = ("server", "worker 0")
    candidates = [step(60, 2.0, shared)] * 3 + [step(60, 5.0)] * 2
    cell = timed(tmp_path, TimingKey(60, 2, 60), [(step(60, 4.0), one) for one in candidates])
    plans = [(one.assignment, one.num_pairs, one.step_s) for one in cell.plans]
    assert plans == [(shared, 3, 2.0), (SERVER, 2, 5.0)]
    assert cell.assignment == shared
    assert cell.phases_s["compute"] == 2.0


def test_efficiency_counts_the_processes_of_each_pair(tmp_path: Path) -> None:
    """Twice as fast by two processes, as fast by one: each pair is 100 % efficient."""
    shared = ("server", "worker 0")
    candidates = [step(60, 2.0, shared)] * 3 + [step(60, 4.0)] * 2
    cell = timed(tmp_path, TimingKey(60, 1, 60), [(step(60, 4.0), one) for one in candidates])
    assert cell.efficiency is not None
    ends = cell.efficiency.low, cell.efficiency.mid, cell.efficiency.high
    assert ends == pytest.approx((1.0, 1.0, 1.0))


def test_a_batch_that_never_met_the_target_has_no_verdict(tmp_path: Path) -> None:
    pairs = [(step(60, 4.0), step(60, 2.0))] * 5
    cells = collected(tmp_path, TimingKey(60, 2, 60), pairs).cells()
    cell = next(it for it in cells if it.workers == 2)
    assert (cell.steps, cell.verdict) == (None, "")
    assert cell.efficiency is not None
