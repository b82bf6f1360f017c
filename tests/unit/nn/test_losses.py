"""Losses by name, also those that are not in the package."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import distsgd.autodiff
from distsgd import TrainConfig, Trainer
from distsgd.autodiff import GradientTape, Variable, assert_gradient
from distsgd.base.arrays import Array
from distsgd.errors import ConfigError
from distsgd.nn import LOSSES, Dense, Loss, Network, find_loss
from distsgd.nn.losses import num_correct

OWN = "tests.unit.nn.own_losses"
LOG_COSH = f"{OWN}:LogCosh"
A, T = np.array([[0.5, -2.0], [3.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 0.5]])


def test_own_loss_is_its_formula() -> None:
    loss = find_loss(LOG_COSH, {"scale": 2.0})
    wanted = (2.0 * np.log(np.cosh((A - T) / 2.0))).sum(axis=1)
    assert loss.sample_losses(A, T).value.tolist() == wanted.tolist()
    assert (loss.name, loss.option_names) == (LOG_COSH, ("scale", "reduction"))


def test_own_loss_has_the_gradient_of_central_differences() -> None:
    loss = find_loss(LOG_COSH, {"scale": 2.0, "reduction": "mean"})

    def loss_and_gradient(at: Array) -> tuple[Variable, Any]:
        a = Variable(at)
        with GradientTape() as tape:
            total = (loss.sample_losses(a, T) * [1.0, -2.0]).sum()
        return total, tape.gradient(total, a)

    assert_gradient(loss_and_gradient, A)


def test_own_loss_stays_with_its_model() -> None:
    model = Network([Dense(2)], find_loss(LOG_COSH, {"scale": 3.0}), (4,))
    assert model.to_dict()["loss"] == LOG_COSH
    assert Network.from_dict(model.to_dict()) == model
    assert pickle.loads(pickle.dumps(model.loss)) == model.loss  # noqa: S301 -- made here.


def of_model(**model: Any) -> dict[str, Any]:
    return {
        "data": {"path": "-", "label": "y"},
        "model": {"layers": [{"type": "dense", "units": 1}]} | model,
        "batch": {"size": 20},
        "train": {"epochs": 3, "dtype": "float64"},
        "parallel": {"workers": 0},
    }


def test_own_loss_trains_by_its_name(tmp_path: Path) -> None:
    config = TrainConfig.from_dict(of_model(loss=LOG_COSH, loss_options={"scale": 0.5}))
    x = np.random.default_rng(0).standard_normal((60, 3))
    result = Trainer(config, data=(x, x @ [1.0, -2.0, 0.5]), run_dir=tmp_path / "run").fit()
    losses = result.history["train_loss"].to_pylist()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("loss", "options", "says"),
    [
        ("nowhere:Loss", {}, 'model.loss: loss "nowhere:Loss" cannot be found: No module named'),
        (f"{OWN}:Nothing", {}, "cannot be found"),
        (f"{OWN}:no_loss", {}, "must be a subclass of NumberLoss or ClassLoss"),
        (LOG_COSH, {"scale": 0.0}, "model.loss_options.scale is 0; must be a number above 0"),
        (LOG_COSH, {"tau": 1.0}, "does not know; it takes scale, reduction"),
        (f"{OWN}:Particular", {"limit": 2}, "model.loss: limit is 2.0; must be 3"),
        (f"{OWN}:Particular", {}, "cannot be made with options {}"),
    ],
)
def test_own_loss_checks_its_options_in_a_configuration(
    loss: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as told:
        TrainConfig.from_dict(of_model(loss=loss, loss_options=options))
    assert len(told.value.problems) == 1


def test_options_that_are_right_are_taken() -> None:
    TrainConfig.from_dict(of_model(loss=f"{OWN}:Particular", loss_options={"limit": 3}))


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if isinstance(kind, str)])
def test_losses_of_lessons_have_two_names(name: str) -> None:
    home = LOSSES[name]
    assert isinstance(home, str)
    assert home.startswith("distsgd.lessons.losses:")
    assert find_loss(name) == Loss(name, find_loss(home).gate)


@pytest.mark.parametrize("name", ["draw_text", "draw_svg", "slope_at", "Slope", "hellinger"])
def test_names_that_moved_to_the_lessons_are_found_with_a_warning(name: str) -> None:
    with pytest.warns(FutureWarning, match=rf"distsgd\.autodiff\.{name} is now distsgd\.lessons"):
        found = getattr(distsgd.autodiff, name)
    assert found.__name__ == name
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="no_such_name"):
        distsgd.autodiff.no_such_name  # noqa: B018 -- the access is the test.


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 9))
def test_num_correct_counts_every_place(shape: list[int], seed: int) -> None:
    chance = np.random.default_rng(seed)
    outputs = chance.standard_normal((5, *shape, 4))
    target = chance.integers(0, 4, (5, *shape))
    loop = sum(int(outputs[place].argmax() == target[place]) for place in np.ndindex(target.shape))
    assert num_correct(outputs, target) == loop
    assert num_correct(outputs, np.eye(4)[target]) == loop
