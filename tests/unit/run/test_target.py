"""A run with a target: refused where none can be measured, ended by it, verified to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, VerificationError
from distsgd.run.callbacks import Callback
from distsgd.run.progress import Progress
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from distsgd.store.logs import EvaluationLog

X = np.arange(64.0, dtype=np.float32).reshape(32, 2) / 64
ROWS = X, X.sum(axis=1)
CLASSES = X, (np.arange(32) % 2)


def config_of(*overrides: str, **train: Any) -> TrainConfig:
    config = TrainConfig.from_dict(
        {
            "data": {"test_fraction": 0.25},
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
            "batch": {"size": 5},
            "optimizer": {"learning_rate": 0.05},
            "train": {"epochs": 20, "digest_every": 1, "evaluate_every_samples": 24, **train},
            "parallel": {"workers": 0},
        }
    )
    return config.with_overrides(overrides)


def steps_and_losses(run: Path) -> list[tuple[int, float]]:
    rows = EvaluationLog(run / "evaluations.jsonl").read()
    return [(row.step, row.test_loss or 0.0) for row in rows]


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """A run that its target ended, in the middle of its length."""
    Trainer(config_of(), data=ROWS, run_dir=tmp_path / "whole").fit()
    losses = [loss for _, loss in steps_and_losses(tmp_path / "whole")]
    config = config_of(target=f"test_loss <= {losses[4]}")
    Trainer(config, data=ROWS, run_dir=tmp_path / "run").fit()
    assert [loss for _, loss in steps_and_losses(tmp_path / "run")] == losses[:5]
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("rows", "overrides", "reason"),
    [
        (ROWS, ["data.test_fraction=0", "train.target=test_loss<=1"], "no rows are held out"),
        (ROWS, ["train.target=test_accuracy>=0.5"], "the labels are numbers"),
    ],
)
def test_target_that_cannot_be_measured_is_refused_before_there_is_a_run(
    rows: Any, overrides: list[str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"train.target is .*; {reason}"):
        Trainer(config_of(*overrides), data=rows, run_dir=tmp_path / "run").fit()
    assert not (tmp_path / "run").exists()


def test_result_and_resume_say_that_the_target_ended_it(ended: Path) -> None:
    saved = Run.open(ended)
    assert (saved.metrics["status"], saved.metrics["stopped_by"]) == ("done", "target")
    assert saved.metrics["steps"] == steps_and_losses(ended)[-1][0] == saved.checkpoint.step
    said: list[str] = []
    callbacks = [Callback(on_message=said.append)]
    again = Trainer(saved.config, data=ROWS, run_dir=ended, callbacks=callbacks)
    assert again.fit(resume="auto").metrics == saved.metrics
    assert any("is finished; nothing to do" in text for text in said)


def test_progress_knows_the_target(tmp_path: Path) -> None:
    seen: list[Progress] = []
    config = config_of("train.target=test_loss<=1e9")
    callbacks = [Callback(on_progress=seen.append)]
    Trainer(config, data=ROWS, run_dir=tmp_path / "run", callbacks=callbacks).fit()
    assert {now.target for now in seen} == {"test_loss <= 1000000000.0"}
    assert seen[-1].step == 5  # 24 rows: four batches of 5 and one of 4.


def test_target_of_accuracy_ends_a_run_of_classes(tmp_path: Path) -> None:
    overrides = ["model.loss=softmax_cross_entropy", "train.target=test_accuracy>=0"]
    config = config_of(*overrides, 'model.layers=[{type="dense",units=2}]')
    result = Trainer(config, data=CLASSES, run_dir=tmp_path / "run").fit()
    assert (result.metrics["stopped_by"], result.metrics["steps"]) == ("target", 5)


def test_replay_stops_where_the_run_did(ended: Path) -> None:
    assert Run.open(ended).verify().steps == steps_and_losses(ended)[-1][0]


def change_target(run: Path, target: str) -> None:
    file = run / "config.json"
    config = json.loads(file.read_text())
    config["train"]["target"] = target
    file.write_text(json.dumps(config))


def test_record_that_continues_behind_its_target_is_wrong(ended: Path) -> None:
    (first, loss), *_ = steps_and_losses(ended)
    change_target(ended, f"test_loss <= {loss}")
    with pytest.raises(VerificationError, match="the run ends before it") as found:
        Run.open(ended).verify()
    assert found.value.step == first + 1


def test_record_of_a_target_that_was_not_met_is_wrong(ended: Path) -> None:
    change_target(ended, "test_loss <= -1")
    with pytest.raises(VerificationError, match="that the target was met here, and it was not"):
        Run.open(ended).verify()
