"""Callbacks: what is called when, and what an error of one does to the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, RunError
from distsgd.parallel.server.step_runner import EpochEnd, StepView
from distsgd.run.callbacks import Callback, Callbacks
from distsgd.run.progress import Progress
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import EvaluationRow

ROWS = np.arange(32.0).reshape(16, 2) / 32, np.arange(16.0)
CONFIG = TrainConfig.from_dict(
    {
        "data": {"test_fraction": 0.25},
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "batch": {"size": 4},
        "train": {"epochs": 3, "digest_every": 1, "evaluate_every_epochs": 2},
        "parallel": {"workers": 0},
    }
)


class Everything(Callback):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_train_start(self, run: Run) -> None:
        with pytest.raises(RunError, match="has no checkpoint yet"):
            _ = run.weights
        self.seen.append(("train_start", run.path))

    def on_step(self, view: StepView) -> None:
        self.seen.append(("step", view.step))

    def on_epoch_end(self, end: EpochEnd) -> None:
        self.seen.append(("epoch_end", (end.step, end.epoch)))

    def on_evaluate(self, evaluation: EvaluationRow) -> None:
        self.seen.append(("evaluate", evaluation.step))

    def on_progress(self, progress: Progress) -> None:
        self.seen.append(("progress", progress.step))

    def on_train_end(self, result: Run) -> None:
        self.seen.append(("train_end", result.path))


def test_hooks_are_called_in_the_order_of_the_run(tmp_path: Path) -> None:
    callback = Everything()
    result = Trainer(CONFIG, data=ROWS, run_dir=tmp_path / "run", callbacks=[callback]).fit()
    assert [found for found in callback.seen if found[0] != "progress"] == [
        ("train_start", result.path),
        *(("step", step) for step in (0, 1, 2)),
        ("epoch_end", (3, 1)),
        *(("step", step) for step in (3, 4, 5)),
        ("epoch_end", (6, 2)),
        ("evaluate", 6),
        *(("step", step) for step in (6, 7, 8)),
        ("epoch_end", (9, 3)),
        ("evaluate", 9),
        ("train_end", result.path),
    ]
    assert ("progress", 9) in callback.seen


def test_epoch_end_says_the_mean_loss_of_its_rows(tmp_path: Path) -> None:
    losses: list[float] = []
    ends: list[EpochEnd] = []
    hooks = Callback(on_step=lambda view: losses.append(view.loss), on_epoch_end=ends.append)
    Trainer(CONFIG, data=ROWS, run_dir=tmp_path / "run", callbacks=[hooks]).fit()
    means = np.array(losses).reshape(3, 3).mean(axis=1)  # All mini-batches have four rows.
    assert [end.train_loss for end in ends] == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize(
    ("hook", "steps"),
    [("on_step", 2), ("on_epoch_end", 3), ("on_evaluate", 6), ("on_progress", None)],
)
def test_hook_that_raises_ends_the_run_which_can_be_resumed_to_the_same_bits(
    hook: str, steps: int | None, tmp_path: Path
) -> None:
    def fail(event: Any) -> None:
        if steps is None or event.step == steps:
            raise ZeroDivisionError

    whole = Trainer(CONFIG, data=ROWS, run_dir=tmp_path / "whole").fit()
    path = tmp_path / "run"
    broken = Trainer(CONFIG, data=ROWS, run_dir=path, callbacks=[Callback(**{hook: fail})])
    with pytest.raises(ZeroDivisionError):
        broken.fit()
    saved = CheckpointStore(path / "checkpoints").steps()
    assert saved
    assert steps in (None, saved[-1])
    result = Trainer(CONFIG, data=ROWS, run_dir=path).fit(resume="auto")
    assert result.metrics["weights_digest"] == whole.metrics["weights_digest"]


def test_start_hook_that_raises_leaves_no_run(tmp_path: Path) -> None:
    def fail(_: Run) -> None:
        raise ZeroDivisionError

    callbacks = [Callback(on_train_start=fail)]
    with pytest.raises(ZeroDivisionError):
        Trainer(CONFIG, data=ROWS, run_dir=tmp_path / "run", callbacks=callbacks).fit()
    assert list(tmp_path.iterdir()) == []


def test_steps_are_looked_at_only_for_who_wants_them() -> None:
    assert Callbacks([Callback(), Callback(on_message=print)]).hooks().events == ()
    assert Callbacks([Everything()]).hooks().events == (
        "on_step",
        "on_epoch_end",
        "on_evaluate",
    )


def test_callbacks_take_their_turns() -> None:
    said: list[str] = []
    first = Callback(on_message=lambda text: said.append(f"first {text}"))
    second = Callback(on_message=lambda text: said.append(f"second {text}"))
    Callbacks([first, second]).message("x")
    assert said == ["first x", "second x"]


def test_hook_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a hook is 'on_batch'; must be one of on_train_start, "):
        Callback(on_batch=print)
    with pytest.raises(ConfigError, match="on_step is 5; must be a function of one argument"):
        Callback(on_step=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"callbacks is .*; must be a list of distsgd.Callback"):
        Callbacks([print])  # type: ignore[list-item]
