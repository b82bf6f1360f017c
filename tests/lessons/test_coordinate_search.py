"""Coordinate search: learning by trying a step up and a step down, without a derivative."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.named import name_of
from distsgd.errors import ConfigError
from distsgd.lessons.coordinate_search import CoordinateSearch
from distsgd.run.trainer import Trainer
from tests.lessons.little_runs import Lesson, learn

RULE: dict[str, Any] = {"type": name_of(CoordinateSearch), "options": {"step_size": 0.001}}
LESSON = Lesson([[0.5]], [0.8], [[0.5]], {"optimizer": RULE, "train": {"steps": 1101}})


def tried(weight: float, *, rounds: int) -> tuple[list[float], float]:
    """The rule as its tutorial writes it down: errors before each round, and the last weight."""
    errors = []
    for _ in range(rounds):
        error, up, down = (
            (0.5 * tried - 0.8) ** 2 for tried in (weight, weight + 0.001, weight - 0.001)
        )
        errors.append(error)
        if down < up:
            weight -= 0.001
        if down > up:
            weight += 0.001
    return errors, weight


def test_errors_are_those_of_the_rule_and_at_the_end_it_swings_around_the_goal(
    tmp_path: Path,
) -> None:
    learnt = learn(LESSON, tmp_path / "run")
    errors, weight = tried(0.5, rounds=1101)
    assert learnt.errors[0] == pytest.approx(0.3025, rel=1e-12)
    assert learnt.errors == pytest.approx(errors, rel=1e-9, abs=1e-20)
    assert float(learnt.weight[0, 0]) == pytest.approx(weight, rel=1e-12)
    assert learnt.errors[-1] < 1e-20  # At the goal: 1100 steps of 0.001 from 0.5 to 1.6.
    swinging = learn(
        replace(LESSON, sections={**LESSON.sections, "train": {"steps": 1110}}), tmp_path / "longer"
    )
    around = [float(view.weights["layers.0.weight"][0, 0]) for view in swinging.views[-9:]]
    assert around[0] != pytest.approx(around[1], abs=1e-4)
    assert np.abs(np.subtract(around, 1.6)).max() < 0.0011
    assert around[::2] == pytest.approx([around[0]] * 5)


def test_history_tells_the_step_and_no_gradient(tmp_path: Path) -> None:
    history = learn(
        replace(LESSON, sections={"optimizer": RULE, "train": {"steps": 5}}), tmp_path / "run"
    ).result.history
    assert set(history["learning_rate"].to_pylist()) == {0.001}
    assert set(history["grad_norm"].to_pylist()) == {None}
    assert set(history["mean_squared_norm"].to_pylist()) == {None}


def test_weights_take_turns_and_frozen_ones_are_passed_over(tmp_path: Path) -> None:
    sections = {
        "optimizer": {**RULE, "frozen": ["layers.0.weight[1]"]},
        "train": {"steps": 4},
    }
    lesson = Lesson([[1.0, 2.0, 3.0]], [9.0], [[0.0], [0.0], [0.0]], sections)
    learnt = learn(lesson, tmp_path / "run")
    moved = [view.weights["layers.0.weight"].ravel().tolist() for view in learnt.views]
    moved.append(learnt.weight.ravel().tolist())
    step = 0.001
    assert moved == [
        [0, 0, 0],
        [step, 0, 0],
        [step, 0, step],
        [2 * step, 0, step],
        [2 * step, 0, 2 * step],
    ]


def test_mini_batches_of_many_rows_are_tried_by_their_losses(tmp_path: Path) -> None:
    x = np.linspace(-1.0, 1.0, 90).reshape(30, 3)
    sections = {
        "optimizer": {**RULE, "options": {"step_size": 0.05}},
        "batch": {"size": 8},
        "parallel": {"workers": 0, "lanes": 4, "lane_rows": 2, "block_rows": 2},
        "train": {"steps": 150},
        "data": {"path": "arrays", "label": "goal", "standardise": "none", "test_fraction": 0.2},
    }
    lesson = Lesson(x, x @ np.array([0.5, -0.25, 0.1]), np.zeros((3, 1)), sections)
    learnt = learn(lesson, tmp_path / "run")
    assert np.mean(learnt.errors[-10:]) < 0.1 * np.mean(learnt.errors[:10])
    assert learnt.result.metrics["test_loss"] is not None


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("optimizer", "clip_norm", 1.0),
        ("train", "stop_gradient_norm", 0.1),
        ("train", "on_divergence", "halve_lr"),
    ],
)
def test_what_needs_a_gradient_is_refused_with_it(section: str, key: str, value: Any) -> None:
    sections = {"optimizer": RULE, "train": {"steps": 5}}
    sections[section] = sections[section] | {key: value}
    lesson = replace(LESSON, sections=sections)
    with pytest.raises(ConfigError, match=rf"{section}\.{key} is set with optimizer\.type"):
        Trainer(lesson.config, data=lesson.arrays)


def test_setting_of_another_rule_is_refused_with_the_options_as_the_way_out() -> None:
    sections = {"optimizer": {**RULE, "weight_decay": 0.1}, "train": {"steps": 5}}
    with pytest.raises(ConfigError, match=r"options = \{weight_decay = 0\.1\}"):
        replace(LESSON, sections=sections).config  # noqa: B018 -- read for its error.
