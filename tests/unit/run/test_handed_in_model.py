"""A function that makes a model, handed to the trainer: named, or used as it is, or refused.

No framework is loaded here: what is looked at comes before a model is made.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.models import Factory, torch_model
from distsgd.run.handed_in import with_handed_in
from distsgd.run.own_code import record
from distsgd.run.trainer import Trainer

SOURCE = """
from distsgd.models import torch_model

@torch_model
def make(inputs, outputs, width=4):
    raise NotImplementedError

NUMBER = 3
"""
PLAIN: dict[str, Any] = {
    "data": {"path": "/rows.parquet", "label": "y"},
    "parallel": {"workers": 0},
}
LAYERS = {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic", "init": "he"}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of a user's in the current directory."""
    (tmp_path / "model_of_user.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("model_of_user")
    sys.modules.pop("model_of_user", None)


def handed_in(config: Any, model: Any) -> tuple[TrainConfig, Factory | None]:
    found, code = with_handed_in(config, model=model, worker=None, rule=None)
    return found, code.factory


def test_function_of_a_module_is_named_in_the_configuration(own: Any) -> None:
    config, factory = handed_in(PLAIN, own.make)
    assert (config.model.factory, factory) == ("model_of_user:make", None)
    config, _ = handed_in(PLAIN | {"model": {"options": {"width": 2}}}, own.make)
    assert config.model.options == {"width": 2}


def test_layers_and_their_loss_give_way_and_a_loss_alone_stays(own: Any) -> None:
    config, _ = handed_in(PLAIN | {"model": LAYERS}, own.make)
    assert (config.model.layers, config.model.loss, config.model.init) == (None, None, None)
    config, _ = handed_in(PLAIN | {"model": {"loss": "huber"}}, own.make)
    assert config.model.loss == "huber"
    whole = TrainConfig.from_dict(PLAIN | {"model": LAYERS})
    assert handed_in(whole, own.make)[0].model.factory == "model_of_user:make"


def test_function_without_a_name_trains_in_this_process_only() -> None:
    @torch_model
    def make(inputs: int, outputs: int) -> None:
        raise NotImplementedError

    config, factory = handed_in(PLAIN, make)
    assert factory is make
    (entry,) = record(config, with_handed_in(PLAIN, model=make, worker=None, rule=None)[1])
    assert (entry["what"], entry["name"], entry["source"]) == ("model", None, None)
    assert entry["shown"].endswith("<locals>.make")
    with pytest.raises(ConfigError, match=r"cannot import the model .*make; move it into a module"):
        handed_in(PLAIN | {"parallel": {"workers": 2}}, make)


@pytest.mark.parametrize("factory", [lambda inputs: inputs, partial(int)])
def test_what_has_no_words_for_a_name_has_one_in_the_record(factory: Any) -> None:
    config, found = handed_in(PLAIN, factory)
    assert found is not None
    assert (config.model.factory or "").endswith(":factory")


class _Module:
    """As a module of PyTorch looks from outside."""

    def named_parameters(self) -> list[Any]:
        return []

    def __call__(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (_Module(), "model is a _Module, a module; must be a function that makes one, since each"),
        ("model_of_user:make", 'must be the function itself (a name stands in [model] factory = "'),
        (3, "model is 3; must be a distsgd.Network, a function that makes a model, or None"),
    ],
)
def test_what_is_no_function_is_refused_with_the_way_out(model: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        handed_in(PLAIN, model)
    assert said in caught.value.problems[0]


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("no_such_module:make", '"no_such_module:make" cannot be found: No module named'),
        ("model_of_user:nothing", "module 'model_of_user' has no attribute 'nothing'"),
        ("model_of_user:NUMBER", "a int; must be a function that makes a model"),
    ],
)
@pytest.mark.usefixtures("own")
def test_factory_that_cannot_be_found_is_told_before_rows_are_read(factory: str, said: str) -> None:
    config = TrainConfig.from_dict(PLAIN | {"model": {"factory": factory}})
    with pytest.raises(ConfigError) as caught:
        Trainer(config)
    assert said in caught.value.problems[0]
    assert caught.value.problems[0].startswith("model.factory")
