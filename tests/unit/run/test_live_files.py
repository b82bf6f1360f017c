"""The files of a run that trains: how often they are written, all at once, and never its end."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from distsgd.errors import RunError
from distsgd.run import live_files, run_files
from distsgd.run.live_files import STATUS_FILE, STOP_FILE, LiveFiles, seen_by_others
from distsgd.store.run_directory import RunDirectory
from tests.unit.run.test_metrics import STATUS


def test_all_files_are_written_of_one_status_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    now_s, run = 0.0, RunDirectory.create(tmp_path / "run")
    status_file, metrics = run.path / STATUS_FILE, run.path / "metrics.prom"

    def steps() -> tuple[int, bool]:
        step = json.loads(status_file.read_text())["step"]
        return step, f'distsgd_step{{run="{run.place}"}} {step}\n' in metrics.read_text()

    with LiveFiles(run, 20, lambda _: None, clock=lambda: now_s) as files:
        assert json.loads(status_file.read_text())["status"] == "starting"
        files.show(replace(STATUS, num_samples=0, phase="starting"))
        files.show(replace(STATUS, num_samples=0, phase="ended"))
        assert not metrics.exists()
        now_s = 1.0
        files.show(STATUS)
        now_s = 1.9
        files.show(replace(STATUS, step=13))
        assert steps() == (12, True)
        now_s = 2.0
        files.show(replace(STATUS, step=14))
        assert steps() == (14, True)
        files.show(replace(STATUS, step=15, phase="ended"))
        assert steps() == (15, True)
    assert metrics.exists()
    assert not status_file.exists()


def test_file_to_stop_by_is_seen_at_once_and_one_that_was_left_is_not(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / STOP_FILE).touch()
    with LiveFiles(run, 20, lambda _: None, clock=lambda: 0.0) as files:
        assert not files.show(STATUS)
        (run.path / STOP_FILE).touch()
        assert files.show(STATUS)
    assert not (run.path / STOP_FILE).exists()


def test_metrics_that_cannot_be_written_are_said_once_and_end_nothing(tmp_path: Path) -> None:
    now_s, said = 0.0, list[str]()
    run = RunDirectory.create(tmp_path / "run")
    (run.path / "metrics.prom").mkdir()
    with LiveFiles(run, 20, said.append, clock=lambda: now_s) as files:
        files.show(STATUS)
        now_s = 5.0
        files.show(STATUS)
    assert len(said) == 1
    assert "metrics.prom is not written any more: Is a directory" in said[0]


def test_run_has_one_driver_and_a_second_leaves_its_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_files, "DRIVER_TIMEOUT_S", 0.0)
    run = RunDirectory.create(tmp_path / "run")
    (run.config_path).write_text("{}")
    first = seen_by_others(run, 10, lambda _: False, lambda _: None)
    with first:
        (run.path / STOP_FILE).touch()
        before = sorted((it.name, it.stat().st_ino) for it in run.path.iterdir())
        in_use = f"is in use by process {os.getpid()} on "
        with (
            pytest.raises(RunError, match=in_use),
            seen_by_others(run, 10, lambda _: False, lambda _: None),
        ):
            pass
        run_files.withdraw(run)  # As a driver does that was refused.
        assert sorted((it.name, it.stat().st_ino) for it in run.path.iterdir()) == before
    with seen_by_others(run, 10, lambda _: False, lambda _: None):
        assert not (run.path / STOP_FILE).exists()
    run_files.withdraw(run)
    assert not run.path.exists()
