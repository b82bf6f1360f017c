"""A learning rate that is too high is seen, named and answered; one that is too low is told."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import DivergedError
from distsgd.parallel.server.step_view import OnStep, StepView
from distsgd.run.trainer import Trainer
from tests.lessons.little_runs import Lesson, bits_of, learn


def lesson(rate: float, *, steps: int, momentum: float = 0.0, **train: Any) -> Lesson:
    optimizer: dict[str, Any] = {"learning_rate": rate}
    if momentum:
        optimizer |= {"type": "momentum", "momentum": momentum}
    sections: dict[str, dict[str, Any]] = {
        "optimizer": optimizer,
        "train": {"steps": steps, **train},
    }
    return Lesson([[2.0]], [0.8], [[0.5]], sections)


def test_a_rate_of_one_grows_nine_fold_a_step(tmp_path: Path) -> None:
    learnt = learn(lesson(1.0, steps=4), tmp_path / "run")
    assert learnt.errors == pytest.approx([0.04, 0.36, 3.24, 29.16], rel=1e-12)


def test_a_rate_of_a_tenth_converges(tmp_path: Path) -> None:
    learnt = learn(lesson(0.1, steps=20), tmp_path / "run")
    assert learnt.errors[:3] == pytest.approx([0.04, 0.0144, 0.005184], rel=1e-12)
    assert learnt.errors[-1] == pytest.approx(1.485277e-10, abs=5e-17)


def test_growth_without_bound_stops_and_names_the_rate(tmp_path: Path) -> None:
    example, seen = lesson(1.0, steps=1000), list[StepView]()
    trainer = Trainer(
        example.config,
        data=example.arrays,
        initial_weights=example.first_weights,
        run_dir=tmp_path / "run",
        on_step=seen.append,
    )
    with pytest.raises(DivergedError, match=r"learning rate of 1, which is too high") as caught:
        trainer.fit()
    # 9^6 is below the million-fold, 9^7 above it.
    assert caught.value.step == 7
    assert [view.step for view in seen] == list(range(8))
    assert "halve_lr" in caught.value.advice


def test_halving_goes_back_to_the_last_good_weights_and_converges(tmp_path: Path) -> None:
    learnt = learn(lesson(1.0, steps=60, on_divergence="halve_lr"), tmp_path / "run")
    rates = learnt.result.history["learning_rate"].to_pylist()
    # One swings around the goal for ever, so it does not grow, and is halved once more after its
    # trial; a quarter meets the goal at once.
    assert sorted(set(rates), reverse=True) == [1.0, 0.5, 0.25]
    assert learnt.errors[-1] < 1e-25
    assert learnt.result.metrics["steps"] == 60
    told = [message for message in learnt.messages if "too high" in message]
    assert [message.partition(";")[2] for message in told] == [
        " back to the last good weights, on with 0.5",
        " back to the last good weights, on with 0.25",
    ]
    again = learnt.views[[view.step for view in learnt.views].index(7, 0) + 1]
    assert again.step == 7  # The step that was given up is made, and seen, again.
    assert again.weights["layers.0.weight"].tolist() == [[0.5]]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rate", [0.6, 3.0, 500.0, 1e200])
def test_halving_answers_any_rate(rate: float, momentum: float, tmp_path: Path) -> None:
    example = lesson(rate, steps=1500, momentum=momentum, on_divergence="halve_lr")
    if rate > 1e100:
        trainer = Trainer(
            example.config,
            data=example.arrays,
            initial_weights=example.first_weights,
            run_dir=tmp_path / "run",
        )
        with pytest.raises(DivergedError, match="too high"):  # More than it is ever halved.
            trainer.fit()
        return
    assert learn(example, tmp_path / "run").errors[-1] < 1e-6


@pytest.mark.parametrize("every_steps", [1, 4, None])
def test_run_stopped_anywhere_goes_on_to_the_same_bits(
    every_steps: int | None, tmp_path: Path
) -> None:
    example = lesson(1.0, steps=40, momentum=0.5, on_divergence="halve_lr")
    whole = learn(example, tmp_path / "whole")
    config = example.config
    if every_steps:
        config = config.with_overrides([f"checkpoint.every_steps={every_steps}"])
    for stop_at in (3, 7, 8, 18):
        seen: list[StepView] = []
        stop = partial(_stop_after, seen, stop_at)
        with pytest.raises(InterruptedError):
            _trainer(example, config, tmp_path / f"{stop_at}", stop).fit()
        rest: list[StepView] = []
        result = _trainer(example, config, tmp_path / f"{stop_at}", rest.append).fit()
        assert result.metrics["weights_digest"] == whole.result.metrics["weights_digest"]
        assert (
            result.history.drop_columns(["seconds"]).to_pylist()
            == whole.result.history.drop_columns(["seconds"]).to_pylist()
        )
        assert [bits_of(view) for view in rest] == [bits_of(v) for v in whole.views[-len(rest) :]]


def _stop_after(seen: list[StepView], count: int, view: StepView) -> None:
    if len(seen) == count:
        raise InterruptedError
    seen.append(view)


def _trainer(example: Lesson, config: TrainConfig, run: Path, on_step: OnStep) -> Trainer:
    return Trainer(
        config,
        data=example.arrays,
        initial_weights=example.first_weights,
        run_dir=run,
        resume="auto",
        on_step=on_step,
    )


def many_rows(rate: float, **train: Any) -> Lesson:
    """200 rows of 5 numbers, in mini-batches of 20."""
    x = np.cos(np.arange(1000.0)).reshape(200, 5)
    sections: dict[str, dict[str, Any]] = {
        "optimizer": {"learning_rate": rate},
        "batch": {"size": 20},
        "parallel": {"workers": 0, "lane_rows": 4, "block_rows": 3},
        "train": {"epochs": 30, **train},
    }
    return Lesson(x, x @ np.arange(5.0), np.zeros((5, 1)), sections)


def test_halving_works_on_mini_batches(tmp_path: Path) -> None:
    learnt = learn(many_rows(40.0, on_divergence="halve_lr"), tmp_path / "run")
    assert learnt.errors[-1] < 0.01 * learnt.errors[0]
    assert learnt.result.history["learning_rate"].to_pylist()[-1] < 40.0


def test_rate_that_is_too_low_is_told(tmp_path: Path) -> None:
    learnt = learn(many_rows(1e-6), tmp_path / "run")
    assert learnt.result.metrics["status"] == "done"
    assert "too low" in learnt.result.metrics["advice"]
    assert learnt.messages[-1] == learnt.result.metrics["advice"]
    one_weight = learn(lesson(1e-7, steps=100), tmp_path / "one")
    assert "too low" in one_weight.result.metrics["advice"]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rate_that_converges_or_swings_is_not_called_too_low(rate: float, tmp_path: Path) -> None:
    assert learn(lesson(rate, steps=101), tmp_path / "run").result.metrics["advice"] is None
    assert learn(lesson(rate, steps=100), tmp_path / "even").result.metrics["advice"] is None


def test_lucky_first_row_is_no_reason_to_stop(tmp_path: Path) -> None:
    x = np.ones((30, 1))
    goals = np.zeros(30)
    goals[10:] = 1000.0
    sections: dict[str, dict[str, Any]] = {
        "optimizer": {"learning_rate": 0.01},
        "batch": {"size": 1},
        "train": {"epochs": 3},
    }
    learnt = learn(Lesson(x, goals, [[1e-9]], sections), tmp_path / "run")
    assert learnt.result.metrics["status"] == "done"
