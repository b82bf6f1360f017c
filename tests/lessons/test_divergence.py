"""A learning rate that is too high is seen, named and answered; one that is too low is told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import DivergedError, RunError
from distsgd.parallel.server.step_runner import OnStep, StepView
from distsgd.run.callbacks import Callback
from distsgd.run.run import Result, Run
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
        run_dir=tmp_path / "run",
        callbacks=[Callback(on_step=seen.append)],
    )
    with pytest.raises(DivergedError, match=r"learning rate of 1, which is too high") as caught:
        trainer.fit(initial_weights=example.first_weights)
    # 9^6 is below the million-fold, 9^7 above it.
    assert caught.value.step == 7
    assert [view.step for view in seen] == list(range(8))
    assert "halve_lr" in caught.value.advice


def test_halving_rolls_back_to_the_last_good_weights_and_converges(tmp_path: Path) -> None:
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
            run_dir=tmp_path / "run",
        )
        with pytest.raises(DivergedError, match="too high"):  # More than it is ever halved.
            trainer.fit(initial_weights=example.first_weights)
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
            _trained(example, config, tmp_path / f"{stop_at}", stop)
        rest: list[StepView] = []
        result = _trained(example, config, tmp_path / f"{stop_at}", rest.append)
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


def _trained(example: Lesson, config: TrainConfig, run: Path, on_step: OnStep) -> Result:
    trainer = Trainer(
        config, data=example.arrays, run_dir=run, callbacks=[Callback(on_step=on_step)]
    )
    return trainer.fit(resume="auto", initial_weights=example.first_weights)


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


def fit(example: Lesson, run: Path, **hooks: Any) -> Result:
    return Trainer(
        example.config,
        data=example.arrays,
        run_dir=run,
        callbacks=[Callback(**hooks)],
    ).fit(initial_weights=example.first_weights)


@pytest.mark.parametrize(("dtype", "steps"), [("float32", 100), ("float64", 400)])
def test_divergence_can_be_watched_to_its_end(dtype: str, steps: int, tmp_path: Path) -> None:
    example = lesson(1.0, steps=steps, on_divergence="continue", dtype=dtype)
    learnt = learn(example, tmp_path / "run")
    errors = learnt.errors
    assert errors[:4] == pytest.approx([0.04, 0.36, 3.24, 29.16], rel=1e-5)
    assert errors[7] == pytest.approx(0.04 * 9**7, rel=1e-5)  # Where it would have stopped.
    assert len(errors) == steps
    assert not np.isfinite(errors[-1])  # Squares overflow before half of the way.
    assert learnt.result.metrics["status"] == "done"
    assert learnt.result.metrics["train_loss"] is None
    assert learnt.result.metrics["advice"].startswith("diverged at step 7: the loss has grown to")
    told = [message for message in learnt.messages if "diverged at step 7" in message]
    assert told
    assert Run.open(tmp_path / "run").verify().steps == steps


def test_weights_that_are_lost_are_named_where_they_are_used(tmp_path: Path) -> None:
    fit(lesson(1.0, steps=100, on_divergence="continue", dtype="float32"), tmp_path / "run")
    saved = Run.open(tmp_path / "run")
    assert np.isnan(saved.recorded_weights_P).all()
    with pytest.raises(RunError, match="weights are no longer finite"):
        _ = saved.weights_P


def test_watched_divergence_stopped_anywhere_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    example = lesson(1.0, steps=120, on_divergence="continue", dtype="float32")
    whole = fit(example, tmp_path / "whole")
    losses = whole.history["train_loss"].to_pylist()
    assert (np.isinf(losses[55]), np.isnan(losses[115])) == (True, True)
    config = example.config.with_overrides(["checkpoint.every_steps=5"])
    for stop_at in (9, 57, 117):
        stop = partial(_stop_after, list[StepView](), stop_at)
        with pytest.raises(InterruptedError):
            _trained(example, config, tmp_path / f"{stop_at}", stop)
        result = _trained(example, config, tmp_path / f"{stop_at}", lambda _: None)
        assert result.metrics["weights_digest"] == whole.metrics["weights_digest"]
        assert result.metrics["advice"] == whole.metrics["advice"]
        rows, wanted = (r.history.drop_columns(["seconds"]).to_pylist() for r in (result, whole))
        assert list(map(str, rows)) == list(map(str, wanted))  # Where nan equals nan.


def test_run_that_does_not_diverge_is_the_same_with_and_without_watching(tmp_path: Path) -> None:
    plain, watched = (
        fit(lesson(0.1, steps=20, on_divergence=word), tmp_path / word)
        for word in ("stop", "continue")
    )
    assert plain.metrics["weights_digest"] == watched.metrics["weights_digest"]
    assert watched.metrics["advice"] is None


@pytest.mark.parametrize("on_divergence", ["stop", "halve_lr"])
@pytest.mark.parametrize(
    "example",
    [
        Lesson([[2.0]], [1e200], [[0.5]], {}),  # A label.
        Lesson([[1e100]], [0.8], [[1e100]], {}),  # A row with its weights.
        Lesson([[2.0]], [0.8], [[1e300]], {}),
    ],
)
def test_no_rate_is_blamed_before_the_first_update(
    example: Lesson, on_divergence: str, tmp_path: Path
) -> None:
    example = replace(example, sections={"train": {"steps": 5, "on_divergence": on_divergence}})
    with pytest.raises(DivergedError, match="before the first update") as caught:
        fit(example, tmp_path / "run")
    assert caught.value.step == 0
    assert "too high" not in str(caught.value)
    assert "labels" in str(caught.value)


@pytest.mark.parametrize(
    ("weight", "on_divergence"),
    [(-3.0, "stop"), (-3.0, "halve_lr"), (0.4, "stop")],  # Outside at once, and after a step.
)
def test_outputs_that_leave_the_domain_are_named(
    weight: float, on_divergence: str, tmp_path: Path
) -> None:
    sections: dict[str, dict[str, Any]] = {
        "model": {
            "loss": "cross_entropy",
            "layers": [{"type": "dense", "units": 1, "bias": False}],
        },
        "optimizer": {"learning_rate": 5.0},
        "train": {"steps": 20, "on_divergence": on_divergence},
    }
    example, said = Lesson([[2.0]], [1.0], [[weight]], sections), list[str]()
    with pytest.raises(
        DivergedError, match=r"end the network with \"softmax\" or \"sigmoid\""
    ) as caught:
        fit(example, tmp_path / "run", on_message=said.append, on_step=lambda _: None)
    assert "too high" not in str(caught.value)
    assert any("warning" in text and "'cross_entropy' takes probabilities" in text for text in said)
