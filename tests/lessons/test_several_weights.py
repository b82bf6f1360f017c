"""Several inputs and outputs: the outer product, and weights that are frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.errors import ConfigError
from distsgd.run.trainer import Trainer
from tests.lessons.little_runs import Lesson, learn

INPUTS = [[8.5, 0.65, 1.2]]


def game(*, steps: int, weights: Any = ((0.1,), (0.2,), (-0.1,)), **optimizer: Any) -> Lesson:
    sections: dict[str, dict[str, Any]] = {
        "optimizer": {"learning_rate": 0.3, **optimizer},
        "train": {"steps": steps},
    }
    return Lesson(INPUTS, [1.0], weights, sections)


def test_three_inputs_with_the_first_weight_frozen(tmp_path: Path) -> None:
    learnt = learn(game(steps=3, frozen=["layers.0.weight[0]"]), tmp_path / "run")
    assert learnt.predictions == pytest.approx([0.86, 0.938225, 0.97274178125], rel=1e-12)
    assert learnt.errors == pytest.approx([0.0196, 0.003816150625, 0.000743010489], rel=1e-8)
    assert float(learnt.weight[0, 0]) == 0.1


def test_three_inputs_with_no_weight_frozen_diverge(tmp_path: Path) -> None:
    learnt = learn(game(steps=3), tmp_path / "run")
    for found, printed, digit in zip(
        learnt.predictions, (0.86, 3.9727, -62.12), (1e-12, 5e-5, 5e-3), strict=True
    ):
        assert found == pytest.approx(printed, abs=digit)


def test_frozen_weight_stays_once_the_others_have_converged(tmp_path: Path) -> None:
    frozen = learn(game(steps=60, frozen=["layers.0.weight[0,0]"]), tmp_path / "frozen")
    assert abs(float(frozen.views[-1].deltas[0, 0])) < 1e-12
    thawed = learn(game(steps=1, weights=frozen.weight.tolist()), tmp_path / "thawed")
    assert float(thawed.weight[0, 0]) == pytest.approx(0.1, abs=1e-11)
    assert abs(float(thawed.views[0].deltas[0, 0])) < 1e-12


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_frozen_weights_keep_their_bits_whatever_the_rule_does(rule: str, tmp_path: Path) -> None:
    lesson = game(
        steps=30,
        type=rule,
        learning_rate=0.01,
        weight_decay=0.1,
        decoupled_weight_decay=0.1,
        clip_norm=0.5,
        frozen=["layers.0.weight[0]", "layers.0.weight[2,0]"],
    )
    learnt = learn(lesson, tmp_path / "run")
    assert learnt.weight[[0, 2]].tobytes() == np.array([[0.1], [-0.1]]).tobytes()
    assert float(learnt.weight[1, 0]) != 0.2


def test_gradient_of_frozen_weights_counts_in_no_norm(tmp_path: Path) -> None:
    learnt = learn(game(steps=1, frozen=["layers.0.weight[0]"]), tmp_path / "run")
    norm = 0.14 * np.hypot(0.65, 1.2)
    assert learnt.result.history["grad_norm"].to_pylist() == pytest.approx([norm])
    whole = 0.14**2 * float(np.square(INPUTS).sum())
    assert learnt.result.history["mean_squared_norm"].to_pylist() == pytest.approx([whole])


def test_names_that_are_no_weights_are_all_refused_at_once(tmp_path: Path) -> None:
    lesson = game(steps=1, frozen=["layers.1.weight", "layers.0.weight[3]", "layers.0.weight[x]"])
    trainer = Trainer(lesson.config, data=lesson.arrays, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError) as caught:
        trainer.fit()
    assert len(caught.value.problems) == 3
    assert all("optimizer.frozen names" in problem for problem in caught.value.problems)


def test_freezing_everything_is_refused(tmp_path: Path) -> None:
    lesson = game(steps=1, frozen=["layers.0.weight"])
    trainer = Trainer(lesson.config, data=lesson.arrays, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="all 3 weights"):
        trainer.fit()


def test_one_input_and_three_outputs(tmp_path: Path) -> None:
    sections: dict[str, dict[str, Any]] = {
        "optimizer": {"learning_rate": 0.1},
        "train": {"steps": 1},
    }
    lesson = Lesson([[0.65]], [[0.1, 1.0, 0.1]], [[0.3, 0.2, 0.9]], sections)
    learnt = learn(lesson, tmp_path / "run")
    assert learnt.weight[0].tolist() == pytest.approx([0.293825, 0.25655, 0.868475], rel=1e-12)


def test_three_inputs_and_three_outputs_change_by_the_outer_product(tmp_path: Path) -> None:
    rows = np.array([[0.1, 0.1, -0.3], [0.1, 0.2, 0.0], [0.0, 1.3, 0.1]])  # Outputs x inputs.
    sections: dict[str, dict[str, Any]] = {
        "optimizer": {"learning_rate": 0.01},
        "train": {"steps": 1},
    }
    learnt = learn(Lesson(INPUTS, [[0.1, 1.0, 0.1]], rows.T, sections), tmp_path / "run")
    assert learnt.views[0].predictions[0].tolist() == pytest.approx([0.555, 0.98, 0.965])
    assert learnt.weight.T[0].tolist() == pytest.approx([0.061325, 0.0970425, -0.30546])
    change = -0.01 * np.outer(INPUTS[0], learnt.views[0].deltas[0])
    assert learnt.weight - rows.T == pytest.approx(change)
