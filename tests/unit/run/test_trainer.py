"""The trainer: what it takes and how it says that it ended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, RunError
from distsgd.run import resume
from distsgd.run.callbacks import Callback
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from distsgd.store.run_directory import RunDirectory


def test_arrays_without_names_train_and_resume(tmp_path: Path) -> None:
    config = TrainConfig.from_dict(
        {
            "model": {"layers": [{"type": "dense", "units": 2}], "loss": "quadratic"},
            "batch": {"size": 2},
            "train": {"steps": 3},
            "parallel": {"workers": 0},
        }
    )
    rows = np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2)
    result = Trainer(config, data=rows, run_dir=tmp_path / "run").fit()
    assert (result.metrics["steps"], result.metrics["stopped_by"]) == (3, "steps")
    assert Run.open(tmp_path / "run").manifest.labels == ("label_0", "label_1")
    again = Trainer(config, data=rows, run_dir=tmp_path / "run").fit(resume="auto")
    assert again.metrics == result.metrics
    with pytest.raises(ConfigError, match=r"data\.path is missing[^@]*data\.label is missing"):
        Trainer(config)


def quadratic(**parallel: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
            "batch": {"size": 2},
            "train": {"steps": 3},
            "parallel": {"workers": 0, **parallel},
        }
    )


def test_start_that_is_interrupted_leaves_no_run(tmp_path: Path) -> None:
    def interrupt(message: str) -> None:
        if message.startswith("starting"):
            assert RunDirectory.is_run(tmp_path / "run")
            raise KeyboardInterrupt

    rows = np.ones((8, 2), np.float32), np.ones(8, np.float32)
    trained = Trainer(
        quadratic(workers=1),
        data=rows,
        run_dir=tmp_path / "run",
        callbacks=[Callback(on_message=interrupt)],
    )
    with pytest.raises(KeyboardInterrupt):
        trained.fit()
    assert list(tmp_path.iterdir()) == []


def test_finished_run_whose_checkpoints_are_gone_says_so(tmp_path: Path) -> None:
    rows = np.ones((8, 2), np.float32), np.ones(8, np.float32)
    again = Trainer(quadratic(), data=rows, run_dir=tmp_path / "run")
    again.fit(resume="auto")
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(RunError, match="is finished, but its checkpoints are gone"):
        again.fit(resume="auto")
    with pytest.raises(RunError, match="is finished, but its checkpoints are gone"):
        _ = Run.open(tmp_path / "run").weights


@pytest.mark.parametrize(
    ("length", "stopped_by"),
    [
        ({"steps": 3}, "steps"),
        ({"epochs": 3}, "epochs"),
        ({"epochs": 3, "steps": 2}, "steps"),
        ({"epochs": 1, "steps": 100}, "epochs"),
    ],
)
def test_run_says_what_ended_it(tmp_path: Path, length: dict[str, int], stopped_by: str) -> None:
    config = TrainConfig.from_dict(
        {
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
            "batch": {"size": 2},
            "train": length,
            "parallel": {"workers": 0},
        }
    )
    rows = np.arange(8.0).reshape(4, 2), np.arange(4.0)
    result = Trainer(config, data=rows, run_dir=tmp_path / "run").fit()
    assert result.metrics["stopped_by"] == stopped_by


def test_a_run_that_another_process_trains_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "FREE_TIMEOUT_S", 0.0)
    rows = np.ones((8, 2), np.float32), np.ones(8, np.float32)
    said: list[str] = []
    again = Trainer(
        quadratic(),
        data=rows,
        run_dir=tmp_path / "run",
        callbacks=[Callback(on_message=said.append)],
    )
    again.fit(resume="auto")
    (tmp_path / "run" / "result.json").unlink()
    # A lock belongs to whoever opened the file, so this process keeps itself out as well.
    with RunDirectory.open(tmp_path / "run").lock(0.0), pytest.raises(RunError, match="process"):
        again.fit(resume="auto")
    assert any(f"process {os.getpid()} on" in text and "has this run" in text for text in said)


def test_argument_that_never_was_is_a_type_error_as_everywhere() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        Trainer({}, colour=None)  # type: ignore[call-arg] # the mistake itself
