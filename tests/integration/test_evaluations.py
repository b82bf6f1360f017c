"""Evaluations and the end at a target: the same rows of the record, whoever computes and dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distsgd.config import TrainConfig
from distsgd.parallel.launch.launch import train_in_process
from distsgd.parallel.server.spec import Outcome
from distsgd.store.logs import EvaluationLog, EvaluationRow
from tests.integration.pools import server_spec, train_with_threads
from tests.integration.program import Program, settings, wait_until

GRID = 500  # Samples, of 1438 rows: batches of 64 leave a short one of 30, after 23 steps.
STEPS_ON_GRID = {
    "1": [500, 1000, 1500, 2000, 2500, 2876],
    "64": [8, 16, 24, 32, 40, 46],
    "full": [1, 2],
}
WORKER = "distsgd_workers.gradient_worker:GradientWorker"


def run_of(
    config: TrainConfig, run: Path, cache_dir: Path, *overrides: str, stop_after: int | None = None
) -> tuple[Outcome, list[EvaluationRow]]:
    """How it ended, and all evaluations."""
    spec = server_spec(config.with_overrides(overrides), run, cache_dir=cache_dir)
    if spec.pool.num_workers:
        outcome = train_with_threads(spec, stop_after=stop_after)
    else:
        outcome = train_in_process(spec, WORKER, lambda _: False)
    return outcome, list(EvaluationLog(run / "evaluations.jsonl").read())


@pytest.mark.parametrize("batch", STEPS_ON_GRID)
def test_one_grid_of_samples_for_all_batch_sizes_workers_and_interruptions(
    batch: str, digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    common = [
        *(f"batch.size={batch}", "train.epochs=2", "optimizer.learning_rate=0.01"),
        *(f"train.evaluate_every_samples={GRID}", "parallel.assignment=all"),
    ]
    alone, rows = run_of(digits, tmp_path / "alone", cache_dir, *common, "parallel.workers=0")
    assert [row.step for row in rows] == STEPS_ON_GRID[batch]
    middle, broken = alone.steps // 2, tmp_path / "broken"
    for workers, stop_after in ((2, middle), (3, middle + 1), (2, None)):
        several = [*common, f"parallel.workers={workers}"]
        found, again = run_of(digits, broken, cache_dir, *several, stop_after=stop_after)
    assert found.weights_digest == alone.weights_digest
    assert again == rows


def test_any_number_of_workers_ends_at_the_same_evaluation(
    digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    common = [
        *("train.evaluate_every_steps=7", "train.target=test_accuracy >= 0.95"),
        "parallel.assignment=all",
    ]
    alone, rows = run_of(digits, tmp_path / "alone", cache_dir, *common, "parallel.workers=0")
    assert (alone.status, alone.stopped_by) == ("done", "target")
    assert [row.step for row in rows] == list(range(7, alone.steps + 1, 7))
    assert [(row.test_accuracy or 0) >= 0.95 for row in rows] == [False] * (len(rows) - 1) + [True]
    for workers in (1, 2):
        path = tmp_path / f"{workers}"
        found, again = run_of(digits, path, cache_dir, *common, f"parallel.workers={workers}")
        assert (found.stopped_by, found.weights_digest) == ("target", alone.weights_digest)
        assert again == rows


TARGET = [
    *("train.evaluate_every_samples=1000", "train.target=test_accuracy>=0.97"),
    *("checkpoint.every_steps=20", "parallel.assignment=all"),
]


def ended(program: Program, run: Path) -> tuple[dict[str, Any], str, str]:
    """What came of it, its evaluations as they are written, and what was said."""
    code, found, said = program.result(timeout_s=150)
    assert code == 0, said
    wait_until(lambda: not program.processes(), 20, "all processes to end")
    return found, (run / "evaluations.jsonl").read_text(), said


def start(place: Path, run: str, workers: str, *arguments: str) -> Program:
    common = ["--workers", workers, "--run-dir", run, *settings(*TARGET)]
    return Program(place, *common, *arguments)


def whole_run(place: Path) -> tuple[dict[str, Any], str]:
    """The run that nothing disturbs."""
    found, rows, said = ended(start(place, "whole", "0"), place / "whole")
    assert (found["status"], found["stopped_by"], found["steps"]) == ("done", "target", 64)
    assert "done (test_accuracy >= 0.97): 64 steps" in said
    return found, rows


def test_killed_driver_changes_no_evaluation_and_no_end(place: Path) -> None:
    whole, rows = whole_run(place)
    killed = start(place, "run", "0", "--inject", "kill driver at step 50")
    killed.process.communicate(timeout=60)
    assert killed.process.returncode == -9
    resumed, again, _ = ended(start(place, "run", "0", "--resume", "auto"), place / "run")
    assert (resumed["weights_digest"], again) == (whole["weights_digest"], rows)
    _, _, said = ended(start(place, "run", "0", "--resume", "auto"), place / "run")
    assert "is finished; nothing to do" in said


@pytest.mark.timeout(200)
def test_killed_servers_change_no_evaluation_and_no_end(place: Path) -> None:
    whole, rows = whole_run(place)
    faults = ("kill server at step 30", "kill server at step 64 during_evaluation")
    inject = [word for fault in faults for word in ("--inject", fault)]
    found, again, _ = ended(start(place, "run", "2", *inject), place / "run")
    assert len(found["faults"]) == 2
    assert (found["stopped_by"], found["steps"]) == ("target", 64)
    assert (found["weights_digest"], again) == (whole["weights_digest"], rows)
