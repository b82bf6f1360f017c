"""What a run says of itself, and where Ray says something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distsgd.errors import RunError
from distsgd.jobs.drive import mark_run
from distsgd.jobs.job import Job
from distsgd.jobs.run_state import RunState, difference, state_of
from distsgd.store.beginning import JOB_FILE
from distsgd.store.run_directory import RunDirectory

RUN_ID = "9" * 16


def job(run_dir: Path | str, status: str = "RUNNING") -> Job:
    return Job("a", "a.1", status, "", str(run_dir), 0.0, None, None, RUN_ID)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory.create(tmp_path / "run")
    found.write_json(found.config_path, {})
    mark_run(str(found.path), RUN_ID)
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


def test_job_that_continues_a_run_is_not_told_by_how_the_last_one_ended(run: RunDirectory) -> None:
    run.write_json(run.result_path, {"status": "interrupted", "steps": 900})
    assert state_of(job(run.path), "") == RunState("begun", 900, "run directory")
    with run.lock(0.0):
        log = "step 1,000/2,000  epoch 3\nstep 1,040/2,000  epoch 4\nthe next step 7\n"
        assert state_of(job(run.path), log) == RunState("training", 1040, "run directory")
        assert state_of(job(run.path), "") == RunState("training", None, "run directory")
    ended = state_of(job(run.path, "STOPPED"), log)
    assert ended == RunState("interrupted", 900, "run directory")


def test_run_that_nobody_has_tells_its_newest_checkpoint(run: RunDirectory) -> None:
    assert state_of(job(run.path), "") == RunState("begun", None, "run directory")
    (run.checkpoints / "step-000000000120").mkdir()
    (run.checkpoints / "step-000000000060").mkdir()
    found = state_of(job(run.path), "")
    assert found == RunState("begun", 120, "run directory")


@pytest.mark.parametrize("text", [None, '{"run_id": "other"}', '{"run_id": ""}', "[]", "{"])
@pytest.mark.parametrize("run_id", [RUN_ID, ""])
def test_directory_of_another_run_on_the_asking_machine_is_not_taken_for_it(
    run: RunDirectory, text: str | None, run_id: str
) -> None:
    run.write_json(run.result_path, {"status": "done", "steps": 9})
    (run.path / JOB_FILE).unlink()
    if text is not None:
        (run.path / JOB_FILE).write_text(text)
    asked = replace(job(run.path), run_id=run_id)
    assert state_of(asked, "") is None
    said = json.dumps({"status": "failed", "steps": 3})
    assert state_of(asked, said) == RunState("failed", 3, "log", None)


def test_damaged_result_is_named(run: RunDirectory) -> None:
    run.result_path.write_text("{")
    with pytest.raises(RunError, match=r"result\.json: is not JSON"):
        state_of(job(run.path), "")


def test_directory_says_whose_run_it_will_be_and_what_is_no_run_is_left_alone(
    tmp_path: Path,
) -> None:
    mark_run(str(tmp_path / "new"), RUN_ID)
    assert (RunDirectory.create(tmp_path / "new").path / JOB_FILE).exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    mark_run(str(tmp_path / "other"), RUN_ID)
    mark_run("s3://bucket/run", RUN_ID)
    assert [it.name for it in (tmp_path / "other").iterdir()] == ["thesis.tex"]


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
