"""A configuration: read whole, refused whole, overridden, held against another one."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from distsgd.base.named import Named
from distsgd.config import DenseLayer, ModelSection, TrainConfig
from distsgd.errors import ConfigError
from distsgd.lab.faults.injection import NAME, overrides
from distsgd.nn.layer_types import LAYER_TYPES
from distsgd.optim.rules import Nesterov
from distsgd.optim.schedules import Step

EXAMPLE = Path(__file__).parents[3] / "distsgd" / "examples" / "digits.toml"


def least(**sections: dict[str, Any]) -> dict[str, Any]:
    """The least that is a configuration, with `sections` laid over it."""
    values: dict[str, Any] = {
        "data": {"path": "/digits.parquet", "label": "digit"},
        "model": {"layers": [{"type": "dense", "units": 10}], "loss": "softmax_cross_entropy"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return values


def problems_of(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(values)
    return caught.value.problems


def test_example_is_read_as_it_stands() -> None:
    config = TrainConfig.from_toml(EXAMPLE)
    assert config.data.path == str(EXAMPLE.parent / "digits.parquet")
    assert config.model.layers is not None
    assert config.model.layers[0] == DenseLayer(type="dense", units=64, activation="relu")
    assert (config.optimizer.type, config.schedule.type) == ("momentum", "cosine")
    assert (config.batch.size, config.train.epochs, config.train.steps) == (64, 20, None)


def test_least_configuration_has_plain_defaults() -> None:
    config = TrainConfig.from_dict(least())
    assert (config.optimizer.type, config.schedule.type) == ("sgd", "constant")
    assert config.train.epochs == 10
    assert (config.parallel.workers, config.parallel.lanes) == ("auto", 16)
    assert config.parallel.step_timeout_s == 60.0
    assert config.optimizer.clip_norm is None


def test_steps_alone_set_no_limit_of_epochs() -> None:
    config = TrainConfig.from_dict(least())
    assert TrainConfig.from_dict(least(train={"steps": 7})).train.epochs is None
    assert config.with_overrides(["train.steps=7"]).train.epochs is None
    both = config.with_overrides(["train.steps=7", "train.epochs=2"]).train
    assert (both.steps, both.epochs) == (7, 2)


@pytest.mark.parametrize("values", [least(), least(train={"steps": 3}, data={"path": ["a", "b"]})])
def test_to_dict_is_plain_json_and_gives_an_equal_configuration(values: dict[str, Any]) -> None:
    config = TrainConfig.from_dict(values)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_key_has_a_meaning_and_a_rule() -> None:
    for section in TrainConfig.model_fields.values():
        table: Any = section.annotation
        for field in table.model_fields.values():
            assert field.description
            assert field.json_schema_extra["rule"]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        '[data]\npath = ["a.parquet", "/b/*.parquet", "s3://c/d"]\ntest_path = "t.parquet"\n'
        'label = "y"\n[model]\nlayers = [{type = "flatten"}]\nloss = "quadratic"\n'
    )
    data = TrainConfig.from_toml(tmp_path / "run.toml").data
    assert data.paths == (str(tmp_path / "a.parquet"), "/b/*.parquet", "s3://c/d")
    assert data.test_paths == (str(tmp_path / "t.parquet"),)


def test_overridden_paths_are_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig.from_toml(EXAMPLE).with_overrides(["data.path=mine.parquet"])
    assert config.data.path == str(tmp_path / "mine.parquet")


def test_single_label_and_path_are_tuples_too() -> None:
    data = TrainConfig.from_dict(least()).data
    assert (data.paths, data.labels, data.test_paths) == (("/digits.parquet",), ("digit",), ())


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("batch.size=full", "batch", "size", "full"),
        ('batch.size="full"', "batch", "size", "full"),
        ("batch.size = 7", "batch", "size", 7),
        ("optimizer.learning_rate=1", "optimizer", "learning_rate", 1.0),
        ("optimizer.clip_norm=2.5", "optimizer", "clip_norm", 2.5),
        ("data.label=my label", "data", "label", "my label"),
        ('data.label=["a"]', "data", "label", ("a",)),
        ("statistics.per_sample=false", "statistics", "per_sample", False),
    ],
)
def test_override_is_toml_or_a_bare_word(override: str, section: str, key: str, value: Any) -> None:
    config = TrainConfig.from_dict(least()).with_overrides([override])
    assert getattr(getattr(config, section), key) == value


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("size=3", "--set size=3 cannot be read; did you mean batch.size?"),
        ("batch.size", "--set batch.size cannot be read; write it as --set section.key=value"),
        ("batch.size=", "--set batch.size= cannot be read"),
        ("data.label=[1", "--set data.label=[1 cannot be read"),
        ('batch.size="64"', 'batch.size is "64"; must be 1 to the number of rows or "full"'),
        ("batch.sise=1", 'batch.sise is not known; did you mean "size"?'),
        (
            'parallel.address="ray://head:10001"',
            'parallel.address is "ray://head:10001"; must be "local", "auto" or host:port',
        ),
        ("parallel.address=foo", 'parallel.address is "foo"; must be "local", "auto" or host:port'),
        (
            "parallel.address=head:99999",
            'parallel.address is "head:99999"; must be "local", "auto"',
        ),
        (
            "parallel.address=http://head:8265",
            'parallel.address is "http://head:8265"; must be "local", "auto" or host:port; the',
        ),
        ("nothing.here=1", "nothing is not known; known here: data, model"),
        ("batch.size=1\nbatch.other=2", "--set"),
    ],
)
def test_wrong_override_is_answered_by_the_way_out(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(least()).with_overrides([override])
    assert caught.value.problems[0].startswith(line)


def test_all_wrong_overrides_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(least()).with_overrides(["size=1", "lanes=2"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "override",
    [
        "parallel.workers=3",
        "parallel.assignment=all",
        "parallel.transport=zmq",
        "parallel.address=elsewhere:1",
        "parallel.step_timeout_s=5",
        "checkpoint.every_s=1",
        "checkpoint.keep=9",
    ],
)
def test_canonical_does_not_see_what_the_bits_do_not_depend_on(override: str) -> None:
    config = TrainConfig.from_toml(EXAMPLE)
    assert config.with_overrides([override]) != config
    assert config.with_overrides([override]).canonical() == config.canonical()


@pytest.mark.parametrize(
    "override",
    [
        "parallel.lanes=4",
        "parallel.lane_rows=2",
        "parallel.block_rows=8",
        "train.seed=1",
        "batch.size=1",
        "train.digest_every=7",
        "data.standardise=none",
        "data.split_seed=1",
        "data.stratify=true",
        "train.epochs=3",
    ],
)
def test_canonical_sees_what_the_bits_depend_on(override: str) -> None:
    config = TrainConfig.from_toml(EXAMPLE)
    assert config.with_overrides([override]).canonical() != config.canonical()


def test_observer_and_workers_are_no_input_to_the_bits() -> None:
    plain = TrainConfig.from_dict(least())
    faulty = plain.with_overrides(
        [*overrides(["kill worker every 50 steps"]), "parallel.workers=[1, 4]"]
    )
    assert faulty.parallel.workers == (1, 4)
    assert faulty.parallel.named_observer == Named(
        NAME, {"faults": ("kill worker every 50 steps",)}
    )
    assert faulty.canonical() == plain.canonical()
    assert TrainConfig.from_dict(json.loads(json.dumps(faulty.to_dict()))) == faulty
    assert plain.parallel.named_observer is None


def test_faults_of_server_and_driver_need_no_workers() -> None:
    faults = ["kill server at step 1", "kill driver at step 2"]
    TrainConfig.from_dict(least(parallel={"workers": 0})).with_overrides(overrides(faults))


def test_rows_that_are_handed_in_need_no_path_and_no_label() -> None:
    model = least()["model"]
    config = TrainConfig.from_dict({"model": model})
    assert (config.data.paths, config.data.labels) == ((), ())
    assert [line.split(" is missing")[0] for line in config.missing_sources()] == [
        "data.path",
        "data.label",
    ]
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.with_overrides(["data.path=a", "data.label=b"]).missing_sources() == []


def test_layers_of_the_configuration_are_those_of_the_networks() -> None:
    of_layers, _ = get_args(ModelSection.model_fields["layers"].annotation)
    layers = get_args(get_args(of_layers)[0])[0]
    types = {
        name for it in get_args(layers) for name in get_args(it.model_fields["type"].annotation)
    }
    assert types == set(LAYER_TYPES)


def test_a_key_of_a_subtable_can_be_overridden() -> None:
    config = TrainConfig.from_dict(least()).with_overrides(["data.csv.separator=|"])
    assert config.data.csv.separator == "|"
    for override in ("data.csv.separator", "data.path.x=1", "train.seed.a.b=1"):
        with pytest.raises(ConfigError):
            TrainConfig.from_dict(least()).with_overrides([override])


@pytest.mark.parametrize(
    ("overrides", "momentum", "weight_decay"),
    [
        ([], 0.5, 0.1),
        (["optimizer.type=sgd"], None, 0.1),
        (["optimizer.type=nesterov"], 0.5, 0.1),
        (["optimizer.momentum=0.25", "optimizer.type=nesterov"], 0.25, 0.1),
        (["optimizer.type=my.rules:Mine"], None, None),
    ],
)
def test_another_rule_takes_the_place_of_the_old_one_with_its_settings(
    overrides: list[str], momentum: float | None, weight_decay: float | None
) -> None:
    optimizer = {"type": "momentum", "momentum": 0.5, "weight_decay": 0.1}
    config = TrainConfig.from_dict(least(optimizer=optimizer)).with_overrides(overrides)
    settings = config.to_dict()["optimizer"]
    assert (settings["momentum"], settings["weight_decay"]) == (momentum, weight_decay)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_setting_that_is_left_out_is_the_default_of_the_chosen_component() -> None:
    config = TrainConfig.from_dict(
        least(optimizer={"type": "nesterov"}, schedule={"type": "step", "every_steps": 7})
    )
    assert config.optimizer.component() == Nesterov()
    schedule = config.schedule.component(peak_learning_rate=0.5, total_steps=100)
    assert schedule == Step(0.5, every_steps=7)
    settings = config.to_dict()
    assert settings["optimizer"]["momentum"] == Nesterov().momentum
    assert settings["schedule"]["final_fraction"] is None  # Of "cosine".


def test_rule_of_ones_own_is_kept_by_name_with_its_options() -> None:
    config = TrainConfig.from_dict(least(optimizer={"type": "my.rules:Mine"})).with_overrides(
        ["optimizer.options.reach=0.5", "optimizer.options.names=[1, 2]"]
    )
    assert config.optimizer.options == {"reach": 0.5, "names": (1, 2)}
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    other = config.with_overrides(["optimizer.options.reach=0.25"])
    assert other.canonical() != config.canonical()


def test_integers_are_not_standardised_unless_that_is_asked_for() -> None:
    integers = TrainConfig.from_dict(least(data={"feature_kind": "integer"}))
    assert integers.data.standardise == "none"
    assert TrainConfig.from_dict(integers.to_dict()) == integers
    assert integers.with_overrides(["data.feature_kind=number"]).data.standardise == "mean_std"
    numbers = TrainConfig.from_dict(least())
    assert numbers.data.standardise == "mean_std"
    assert numbers.with_overrides(["data.feature_kind=integer"]).data.standardise == "none"


@pytest.mark.parametrize(
    ("data", "problem", "way_out"),
    [
        (
            {"feature_kind": "integer", "standardise": "min_max"},
            'standardise is "min_max" with data.feature_kind "integer"; integers are kept as they',
            '(remove standardise from [data], or set it to "none")',
        ),
        (
            {"feature_kind": "whole"},
            'feature_kind is "whole"; must be "number" or "integer"',
            "(set [data] feature_kind)",
        ),
        (
            {"input_shape": [28, 0]},
            "input_shape is [28, 0]; must be a list of whole numbers, 1 or more, whose product is",
            "(set [data] input_shape)",
        ),
        (
            {"target_shape": []},
            "target_shape is []; must be a list of whole numbers, 1 or more, whose product is",
            "(set [data] target_shape)",
        ),
        (
            {"target_shape": [2], "stratify": True, "test_fraction": 0.5},
            "stratify is true with data.target_shape; a row of several labels is of no one class",
            "(remove stratify from [data])",
        ),
    ],
)
def test_shapes_and_kinds_that_cannot_be_are_told(
    data: dict[str, Any], problem: str, way_out: str
) -> None:
    (told,) = problems_of(least(data=data))
    assert told.startswith(f"data.{problem}")
    assert told.endswith(way_out)
