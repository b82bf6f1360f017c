"""``[model]`` by layers or by a factory, and what its labels are: said whole, or refused."""

from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.run.source import prepare_options


def config(
    model: dict[str, Any] | None = None, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "data": {"path": "/rows.parquet", "label": "y"} | (data or {}),
        "model": {"factory": "my_model:make"} | (model or {}),
    }


def problems_of(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(values)
    return caught.value.problems


def test_factory_needs_no_layers_and_no_loss_and_has_first_weights_of_its_own() -> None:
    read = TrainConfig.from_dict(config({"options": {"width": 3}}))
    assert (read.model.layers, read.model.loss, read.model.init) == (None, None, None)
    assert read.with_overrides(["model.options.width=4"]).model.options == {"width": 4}
    # As a run records it, with every key.
    assert TrainConfig.from_dict(read.to_dict()) == read
    assert TrainConfig.from_dict(read.to_dict()).canonical() == read.canonical()


def test_layers_keep_their_initialiser() -> None:
    layers = {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"}
    assert TrainConfig.from_dict(config() | {"model": layers}).model.init == "glorot"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"layers": [{"type": "dense", "units": 1}]},
            "and model.layers is set; what it makes is the whole model (remove layers from ",
        ),
        ({"init": "he"}, "and model.init is set; what it makes has first weights of its own"),
        ({"loss_options": {"delta": 1.0}}, "and model.loss_options is set; no loss is named"),
    ],
)
def test_factory_refuses_what_layers_take(model: dict[str, Any], said: str) -> None:
    (problem,) = problems_of(config(model))
    assert problem.startswith('model.factory is "my_model:make" ')
    assert said in problem


def test_loss_that_is_named_for_a_factory_takes_its_options() -> None:
    named = {"loss": "huber", "loss_options": {"delta": 2.0}}
    assert TrainConfig.from_dict(config(named)).model.loss_options == {"delta": 2.0}
    (problem,) = problems_of(config({"loss": "huber", "loss_options": {"tau": 2.0}}))
    assert "model.loss_options has tau" in problem


def test_options_without_a_factory_and_no_model_at_all_say_both_ways() -> None:
    found = problems_of(config() | {"model": {"options": {"width": 3}}})
    assert "(set [model] layers, or factory for a model of your own)" in found[0]
    assert found[1].startswith("model.loss is missing")
    assert found[2].startswith('model.options is {"width": 3} without a factory')


@pytest.mark.parametrize("factory", ["my_model", "my_model.make", "my_model:", 3])
def test_factory_that_is_no_name_is_the_only_problem(factory: object) -> None:
    (problem,) = problems_of(config({"factory": factory}, {"label_kind": "class"}))
    assert problem.startswith("model.factory is ")
    assert 'must be "module:function"' in problem


def test_another_mistake_is_said_without_problems_of_layers() -> None:
    (problem,) = problems_of(config() | {"batch": {"size": 0}})
    assert problem.startswith("batch.size is 0")


@pytest.mark.parametrize(
    ("model", "data", "kind"),
    [
        ({}, {}, "auto"),
        ({}, {"label_kind": "class"}, "class"),
        ({}, {"label_kind": "number"}, "number"),
        ({}, {"one_hot": True}, "class"),
        ({"loss": "squared_error"}, {}, "number"),
        ({"loss": "softmax_cross_entropy"}, {"label_kind": "class"}, "class"),
        ({"loss": "squared_error"}, {"one_hot": True}, "class"),
    ],
)
def test_labels_are_what_the_loss_takes_or_else_what_is_said(
    model: dict[str, Any], data: dict[str, Any], kind: str
) -> None:
    assert prepare_options(TrainConfig.from_dict(config(model, data))).label_kind == kind


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (
            {"loss": "softmax_cross_entropy"},
            {"label_kind": "number"},
            'with model.loss "softmax_cross_entropy", which takes classes; the loss decides',
        ),
        (
            {"loss": "squared_error"},
            {"label_kind": "class"},
            'data.label_kind is "class" with model.loss "squared_error", which takes numbers',
        ),
        (
            {"loss": "squared_error"},
            {"label_kind": "number", "one_hot": True},
            'data.label_kind is "number" with data.one_hot',
        ),
        ({}, {"label_kind": "number", "one_hot": True}, "only classes are made zeros and ones"),
        (
            {},
            {"label_kind": "number", "stratify": True, "test_fraction": 0.5},
            "only classes can be stratified",
        ),
        ({}, {"stratify": True}, "there is nothing to split"),
        (
            {},
            {"label_kind": "class", "label": ["y", "z"]},
            'data.label_kind is "class" with 2 columns in data.label',
        ),
        ({}, {"label_kind": "clas"}, 'must be "auto", "class" or "number"'),
    ],
)
def test_contradictions_about_labels_are_refused(
    model: dict[str, Any], data: dict[str, Any], said: str
) -> None:
    (problem,) = problems_of(config(model, data))
    assert said in problem


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"act": float}, "act", "<class 'float'>"),
        ({"rate": float("nan")}, "rate", "nan"),
        ({"layers": [1, {"rate": float("inf")}]}, "layers[1].rate", "inf"),
        ({"sizes": {3: 4}}, "sizes", "{3: 4}"),
        ({"width": np.float32(3)}, "width", "np.float32(3.0)"),
    ],
)
def test_options_that_no_file_can_hold_are_refused(
    options: dict[str, Any], key: str, value: str
) -> None:
    (problem,) = problems_of(config({"options": options}))
    assert problem.startswith(f"model.options.{key} is {value}; must be a plain value: text, ")
    assert "(pass a name, such as " in problem


def test_plain_options_are_taken() -> None:
    plain = {"a": "relu", "b": (1, (2.5, None)), "c": {"d": True}}
    assert TrainConfig.from_dict(config({"options": plain})).model.options == plain
