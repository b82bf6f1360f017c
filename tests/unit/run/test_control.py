"""A run that trains in this process, looked at and stopped by files. No Ray is started."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import RunError, TrainingInterrupted
from distsgd.parallel.launch.actors.desired_workers import DesiredWorkers
from distsgd.run.callbacks import Callback
from distsgd.run.control import control_of
from distsgd.run.live_files import STATUS_FILE, STOP_FILE
from distsgd.run.trainer import Trainer

ROWS = np.ones((8, 2), np.float32), np.ones(8, np.float32)
CONFIG = TrainConfig.from_dict(
    {
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "batch": {"size": 2},
        "train": {"steps": 100_000_000},
        "parallel": {"workers": 0},
    }
)


def stopped_after_a_look(run: Path) -> list[dict[str, Any]]:
    """What `report` says while the run trains, until it is stopped from outside."""
    seen: list[dict[str, Any]] = []

    def look(_: object) -> None:
        with control_of(str(run), None) as control:
            seen.append(control.report())
            control.stop()

    trainer = Trainer(CONFIG, data=ROWS, run_dir=run, callbacks=[Callback(on_progress=look)])
    with pytest.raises(TrainingInterrupted) as stopped:
        trainer.fit()
    with control_of(str(run), None) as control:
        seen.append(control.report())
    assert seen[-1]["step"] == stopped.value.step
    return seen


def test_run_in_this_process_is_seen_and_stopped_with_a_checkpoint(tmp_path: Path) -> None:
    first, *_, last = stopped_after_a_look(tmp_path / "run")
    assert first["status"] in ("training", "evaluating", "saving", "starting")
    assert first.keys() == last.keys()
    assert last["status"] == "interrupted"
    assert last["step"] > 0
    for name in (STATUS_FILE, STOP_FILE):
        assert not (tmp_path / "run" / name).exists()


def test_run_that_nobody_trains_cannot_be_stopped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped_after_a_look(run)
    left = {"driver": {"pid": os.getpid(), "host": "elsewhere"}, "status": "training"}
    for text in (None, "{", "[]", json.dumps(left)):
        if text is not None:
            (run / STATUS_FILE).write_text(text)
        with control_of(str(run), None) as control:
            assert control.report()["status"] == "interrupted"
            assert control.report()["num_workers"] == 0
            here = (
                r"is not being trained on this machine \(interrupted, step [0-9,]+\); distsgd show"
            )
            with pytest.raises(RunError, match=here):
                control.stop()
            with pytest.raises(RunError, match="is not being trained with workers"):
                control.want(2)


def test_run_without_a_directory_here_needs_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    with (
        pytest.raises(RunError, match="name the cluster that trains it: --address"),
        control_of(str(tmp_path), None),
    ):
        pass


def test_driver_on_another_machine_says_where_its_cluster_is(tmp_path: Path) -> None:
    driver = DesiredWorkers(tmp_path)
    assert driver.elsewhere() is None
    driver.begin(2, address="head:6379")
    assert driver.elsewhere() is None
    file = tmp_path / "workers.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"driver": {"pid": 1, "host": "elsewhere"}}))
    assert driver.elsewhere() == "head:6379"
