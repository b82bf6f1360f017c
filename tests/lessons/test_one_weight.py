"""Gradient descent on one weight: stopping, sign and scaling, the end as the gradient nears 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distsgd.parallel.server.step_runner import StepView
from distsgd.run.callbacks import Callback
from distsgd.run.trainer import Trainer
from distsgd.store.checkpoint import CheckpointStore
from tests.lessons.little_runs import Lesson, bits_of, learn


def lesson(weight: float, x: float, *, steps: int, goal: float = 0.8, **train: object) -> Lesson:
    return Lesson(
        [[x]],
        [goal],
        [[weight]],
        {"optimizer": {"learning_rate": 1.0}, "train": {"steps": steps, **train}},
    )


def test_four_rounds_from_zero_give_the_printed_errors_and_deltas(tmp_path: Path) -> None:
    learnt = learn(lesson(0.0, 1.1, steps=4), tmp_path / "run")
    assert learnt.errors == pytest.approx([0.64, 0.028224, 0.0012446784, 5.489e-05], abs=5e-9)
    assert learnt.errors[:3] == pytest.approx([0.64, 0.028224, 0.0012446784], rel=1e-12)
    deltas = [float(view.deltas[0, 0]) for view in learnt.views]
    # The printed weight deltas are the pure error times the input: scaling, and sign.
    assert np.multiply(deltas, 1.1) == pytest.approx([-0.88, 0.1848, -0.038808, 0.00814968])
    assert deltas == [float((view.predictions - view.targets)[0, 0]) for view in learnt.views]
    weights = [float(view.weights["layers.0.weight"][0, 0]) for view in learnt.views]
    assert weights == pytest.approx([0.0, 0.88, 0.6952, 0.734008])
    assert [view.step for view in learnt.views] == [0, 1, 2, 3]
    assert [2 * view.loss for view in learnt.views] == learnt.errors


def test_twenty_rounds_come_near_the_goal(tmp_path: Path) -> None:
    learnt = learn(lesson(0.5, 0.5, steps=20), tmp_path / "run")
    assert learnt.errors[:2] == pytest.approx([0.3025, 0.17015625], rel=1e-12)
    assert learnt.errors[-1] == pytest.approx(5.408e-06, abs=5e-10)
    assert learnt.result.metrics["stopped_by"] == "steps"
    assert learnt.result.metrics["advice"] is None


def test_input_of_zero_stops_learning_and_a_negative_one_turns_its_sign(tmp_path: Path) -> None:
    stopped = learn(lesson(0.5, 0.0, steps=3), tmp_path / "stopped")
    assert stopped.weight.tolist() == [[0.5]]
    turned = learn(lesson(0.5, -0.5, steps=1), tmp_path / "turned")
    assert float(turned.views[0].deltas[0, 0]) < 0.0
    assert float(turned.weight[0, 0]) < 0.5


def test_run_ends_when_the_gradient_nears_zero(tmp_path: Path) -> None:
    ended = learn(lesson(0.5, 0.5, steps=1000, stop_gradient_norm=0.01), tmp_path / "run")
    metrics, norms = ended.result.metrics, ended.result.history["grad_norm"].to_pylist()
    assert (metrics["status"], metrics["stopped_by"]) == ("done", "gradient")
    # The gradient 0.275 * 0.75^n is below 0.01 for the first time at n = 12, the 13th step.
    assert metrics["steps"] == 13
    assert norms[-1] < 0.01 <= norms[-2]
    assert norms == pytest.approx([0.275 * 0.75**n for n in range(13)])


def test_run_that_has_ended_by_its_gradient_is_not_gone_on_with(tmp_path: Path) -> None:
    example = lesson(0.5, 0.5, steps=1000, stop_gradient_norm=0.01)

    def fit(*, stop_at: int | None = None) -> str:
        def look(view: StepView) -> None:
            if view.step == stop_at:
                trainer.request_stop()

        trainer = Trainer(
            example.config,
            data=example.arrays,
            run_dir=tmp_path / "run",
            callbacks=[Callback(on_step=look)],
        )
        result = trainer.fit(resume="auto", initial_weights=example.first_weights)
        return str(result.metrics["weights_digest"])

    whole = learn(example, tmp_path / "whole").result.metrics["weights_digest"]
    assert fit() == whole
    (tmp_path / "run" / "result.json").unlink()  # As if killed between its end and its result.
    assert fit() == whole
    assert CheckpointStore(tmp_path / "run" / "checkpoints").steps()[-1] == 13


class BoomError(Exception):
    """What a callback raises."""


def test_callback_that_raises_ends_the_run_at_its_step_with_a_checkpoint(tmp_path: Path) -> None:
    example = lesson(0.5, 0.5, steps=20)
    seen: list[StepView] = []

    def look(view: StepView) -> None:
        if view.step == 7 and len(seen) == 7:
            raise BoomError
        seen.append(view)

    def fit() -> None:
        Trainer(
            example.config,
            data=example.arrays,
            run_dir=tmp_path / "run",
            callbacks=[Callback(on_step=look)],
        ).fit(resume="auto", initial_weights=example.first_weights)

    with pytest.raises(BoomError):
        fit()
    assert CheckpointStore(tmp_path / "run" / "checkpoints").steps() == (7,)
    seen.append(seen[0])  # So that the callback goes on.
    fit()
    del seen[7]
    whole = learn(example, tmp_path / "whole")
    assert [bits_of(view) for view in seen] == [bits_of(view) for view in whole.views]


def test_views_keep_their_weights_while_training_goes_on(tmp_path: Path) -> None:
    views = learn(lesson(0.5, 0.5, steps=5), tmp_path / "run").views
    assert len({view.weights["layers.0.weight"].tobytes() for view in views}) == 5
