"""What a run says of itself, and where Ray says something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distsgd.jobs.job import Job
from distsgd.jobs.run_state import RunState, difference, state_of
from distsgd.store.run_directory import RunDirectory


def job(run_dir: Path | str, status: str = "RUNNING") -> Job:
    return Job("a", "a.1", status, "", str(run_dir), 0.0, None, None)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory.create(tmp_path / "run")
    found.write_json(found.config_path, {})
    return found


def test_run_that_has_ended_says_how(run: RunDirectory) -> None:
    run.write_json(run.result_path, {"status": "done", "steps": 900})
    found = state_of(job(run.path), "")
    assert found == RunState("done", 900, "run directory")


def test_reason_why_the_last_try_ended_is_read_from_the_log(run: RunDirectory) -> None:
    run.write_json(run.result_path, {"status": "interrupted", "steps": 900})
    log = json.dumps({"status": "failed", "error": "belongs to another configuration"})
    found = state_of(job(run.path, "FAILED"), log)
    error = "belongs to another configuration"
    assert found == RunState("interrupted", 900, "run directory", error)


def test_run_that_a_process_has_is_training_whatever_it_said_before(run: RunDirectory) -> None:
    run.write_json(run.result_path, {"status": "interrupted", "steps": 900})
    with run.lock(0.0):
        found = state_of(job(run.path), "")
    assert found is not None
    assert found.status == "training"


def test_run_that_nobody_has_tells_its_newest_checkpoint(run: RunDirectory) -> None:
    assert state_of(job(run.path), "") == RunState("begun", None, "run directory")
    (run.checkpoints / "step-000000000120").mkdir()
    (run.checkpoints / "step-000000000060").mkdir()
    found = state_of(job(run.path), "")
    assert found == RunState("begun", 120, "run directory")


@pytest.mark.parametrize("run_dir", ["s3://bucket/run", "/not/seen/from/here", "~/nor/this", ""])
def test_run_that_is_not_seen_from_here_is_read_from_the_log(run_dir: str) -> None:
    last = json.dumps({"status": "failed", "steps": None, "error": "no room", "exit_code": 4})
    log = f'{{"status": "done"}}\nstep 3\n{last}\n{{no json\n'
    found = state_of(job(run_dir), log)
    assert found == RunState("failed", None, "log", "no room")
    assert state_of(job(run_dir), "step 3\n[]\n") is None


@pytest.mark.parametrize(
    ("ray", "run_status", "differs"),
    [
        ("RUNNING", "training", False),
        ("SUCCEEDED", "done", False),
        ("FAILED", "failed", False),
        ("FAILED", "diverged", False),
        ("STOPPED", "interrupted", False),
        ("STOPPED", "begun", False),
        ("PENDING", "done", False),
        ("RUNNING", "done", True),
        ("FAILED", "done", True),
        ("FAILED", "training", True),
        ("SUCCEEDED", "interrupted", True),
        ("SUCCEEDED", "begun", True),
        ("RUNNING", "diverged", True),
    ],
)
def test_difference_between_ray_and_the_run_is_said(
    ray: str, run_status: str, *, differs: bool
) -> None:
    said = difference(job("", ray), RunState(run_status, 1, "run directory"))
    assert bool(said) is differs
    assert difference(job("", ray), None) == ""
