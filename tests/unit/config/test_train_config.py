"""A configuration: read whole, refused whole, overridden, held against another one."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from distsgd.config import DenseLayer, ModelSection, TrainConfig
from distsgd.errors import ConfigError
from distsgd.nn.described import LAYER_TYPES

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
        "parallel.plan=all",
        "parallel.exchange=zmq",
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


def test_everything_wrong_is_told_at_once() -> None:
    problems = problems_of(
        {
            "data": {"path": [1], "labell": "y", "test_fraction": 0.2, "test_path": "t"},
            "model": {
                "layers": [
                    {"type": "dense", "units": 0, "unit": 3},
                    {"units": 3},
                    {"type": "conv"},
                    5,
                ],
                "loss": "adam",
            },
            "optimiser": {},
            "optimizer": {"learning_rate": float("nan")},
            "batch": {"size": 0},
            "train": {"lanes": 3, "epochs": True},
            "parallel": 4,
            "schedule": {"type": "step"},
        }
    )
    types = (
        '"dense", "flatten", "reshape", "convolution", "max_pool", "layer_norm", "dropout", '
        '"relu", "sigmoid", "tanh", "softmax" (edit [model] layers)'
    )
    a_layer = f"must be a table whose type is one of {types}"
    assert sorted(problems) == sorted(
        [
            (
                "data.path is [1]; must be a file, a list of files, a glob or a prepared directory"
                " (set [data] path)"
            ),
            "data.label is missing; must be a column or a list of columns (set [data] label)",
            'data.labell is not known; did you mean "label"?',
            (
                "data.test_fraction is 0.2 beside data.test_path; only one may choose the test rows"
                " (remove one of them from [data])"
            ),
            "model.layers[0].units is 0; must be a whole number, 1 or more (edit [model] layers)",
            'model.layers[0].unit is not known; did you mean "units"?',
            f'model.layers[1] is {{"units": 3}}; {a_layer}',
            f'model.layers[2] is {{"type": "conv"}}; {a_layer}',
            f"model.layers[3] is 5; {a_layer}",
            (
                'model.loss is "adam"; must be "softmax_cross_entropy", "sigmoid_cross_entropy",'
                ' "squared_error", "quadratic", "cross_entropy", "exponential", "hellinger",'
                ' "kullback_leibler", "generalised_kullback_leibler", "itakura_saito",'
                ' "mean_absolute", "huber" or "hinge" (set [model] loss)'
            ),
            'optimiser is not known; did you mean "optimizer"?',
            (
                "optimizer.learning_rate is nan; must be a number above 0"
                " (set [optimizer] learning_rate)"
            ),
            'batch.size is 0; must be 1 to the number of rows or "full" (set [batch] size)',
            "train.lanes is not known; did you mean [parallel] lanes?",
            "train.epochs is true; must be a whole number, 1 or more (set [train] epochs)",
            "parallel is 4; must be a table (write [parallel], its keys below it)",
            (
                'schedule.every_steps is missing; must be 1 or more with type "step"'
                " (set [schedule] every_steps)"
            ),
        ]
    )


def test_nothing_at_all_names_what_is_missing() -> None:
    missing = [problem.split(" is missing")[0] for problem in problems_of({})]
    assert missing == ["data.path", "data.label", "model.layers", "model.loss"]


def test_no_layers_are_refused() -> None:
    (problem,) = problems_of(least(model={"layers": []}))
    assert problem.startswith("model.layers is []; must be a list of one or more layers")


@pytest.mark.parametrize(
    ("sections", "start"),
    [
        (
            {"data": {"one_hot": True}},
            'data.one_hot is true with model.loss "softmax_cross_entropy"',
        ),
        ({"data": {"label": ["a", "b"]}}, "data.label names 2 columns with model.loss"),
        (
            {
                "data": {"label": ["a", "b"], "one_hot": True},
                "model": {"loss": "quadratic"},
            },
            "data.label names 2 columns with data.one_hot true",
        ),
        (
            {"data": {"one_hot": True}, "model": {"loss": "hinge"}},
            'data.one_hot is true with model.loss "hinge"',
        ),
        (
            {"model": {"loss": "huber", "loss_options": {"tau": 1.0}}},
            'model.loss_options has tau, which loss "huber" does not know; it takes delta',
        ),
        (
            {"model": {"loss": "huber", "loss_options": {"delta": 0.0}}},
            "model.loss_options.delta is 0; must be a number above 0",
        ),
        (
            {"model": {"loss": "huber", "loss_options": {"delta": "mean"}}},
            "model.loss_options.delta is mean; must be a number above 0",
        ),
        (
            {"model": {"loss": "huber", "loss_options": {"reduction": 2.0}}},
            'model.loss_options.reduction is 2; must be "sum" or "mean"',
        ),
        (
            {"model": {"loss": "hinge", "loss_options": {"reduction": "mean"}}},
            "model.loss_options has reduction",
        ),
        (
            {"data": {"one_hot": True}, "model": {"loss": "itakura_saito"}},
            'data.one_hot is true with model.loss "itakura_saito", which takes targets above 0',
        ),
        (
            {"model": {"layers": [{"type": "batch_norm"}], "loss": "hinge"}},
            'model.layers[0] is {"type": "batch_norm"}; batch normalisation mixes the samples',
        ),
        ({"data": {"stratify": True}}, "data.stratify is true beside data.test_fraction 0"),
        (
            {"data": {"stratify": True, "test_fraction": 0.5}, "model": {"loss": "huber"}},
            'data.stratify is true with model.loss "huber"; the labels are numbers',
        ),
        ({"data": {"features": ["x", "digit"]}}, 'data.features names "digit", which is a label'),
        ({"data": {"features": ["x", "x"]}}, 'data.features names "x" twice'),
        ({"data": {"exclude": ["x", "x"]}}, 'data.exclude names "x" twice'),
        (
            {"data": {"features": ["x"], "exclude": ["x"]}},
            'data.features and data.exclude both name "x"',
        ),
        ({"train": {"epochs": None}}, "train.epochs and train.steps are both missing"),
        ({"schedule": {"type": "step"}}, "schedule.every_steps is missing"),
    ],
)
def test_keys_that_disagree_are_refused(sections: dict[str, Any], start: str) -> None:
    (problem,) = problems_of(least(**sections))
    assert problem.startswith(start)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "test_fraction", 1.0),
        ("data", "test_fraction", -0.1),
        ("data", "path", ""),
        ("data", "features", "other"),
        ("data", "shards", 0),
        ("data", "stratify", 1),
        ("data", "split_seed", -1),
        ("data", "split_seed", 2**63),
        ("model", "init", "ones"),
        ("optimizer", "learning_rate", 0),
        ("optimizer", "learning_rate", float("inf")),
        ("optimizer", "learning_rate", "0.1"),
        ("optimizer", "momentum", 1),
        ("optimizer", "clip_norm", 0),
        ("batch", "size", 1.5),
        ("batch", "size", True),
        ("batch", "size", "all"),
        ("train", "seed", -1),
        ("train", "seed", 2**63),
        ("train", "dtype", "float16"),
        ("parallel", "workers", -1),
        ("parallel", "lanes", 0),
        ("parallel", "lane_rows", 0),
        ("checkpoint", "keep", 0),
        ("statistics", "per_sample", 1),
    ],
)
def test_impossible_value_is_refused_with_value_rule_and_way_out(
    section: str, key: str, value: Any
) -> None:
    (problem,) = problems_of(least(**{section: {key: value}}))
    assert problem.startswith(f"{section}.{key} is ")
    assert "; must be " in problem
    assert problem.endswith(f"(set [{section}] {key})")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"[data\n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_unreadable_file_is_a_configuration_error(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        TrainConfig.from_toml(path)


def test_directory_in_place_of_the_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        TrainConfig.from_toml(tmp_path)


def test_faults_and_workers_are_no_input_to_the_bits() -> None:
    plain = TrainConfig.from_dict(least())
    hurt = plain.with_overrides(
        ['chaos.faults=["kill worker every 50 steps"]', "parallel.workers=[1, 4]"]
    )
    assert hurt.parallel.workers == (1, 4)
    assert hurt.canonical() == plain.canonical()
    assert TrainConfig.from_dict(json.loads(json.dumps(hurt.to_dict()))) == hurt


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"chaos": {"faults": ["kill everybody"]}}, 'chaos.faults has "kill everybody", which'),
        ({"chaos": {"fault": []}}, 'did you mean "faults"?'),
        (
            {"chaos": {"faults": ["kill worker at step 1"]}, "parallel": {"workers": 0}},
            "names workers and parallel.workers is 0",
        ),
        ({"parallel": {"workers": [4, 1]}}, "the fewest come first"),
        ({"parallel": {"workers": [0, 1]}}, "[fewest, most] with fewest 1 or more"),
        ({"parallel": {"workers": [1, 2, 3]}}, "[fewest, most] with fewest 1 or more"),
    ],
)
def test_faults_and_bounds_that_cannot_be_are_refused(
    sections: dict[str, Any], problem: str
) -> None:
    (text,) = problems_of(least(**sections))
    assert problem in text


def test_faults_of_server_and_driver_need_no_workers() -> None:
    faults = ["kill server at step 1", "kill driver at step 2"]
    TrainConfig.from_dict(least(chaos={"faults": faults}, parallel={"workers": 0}))


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, "9" * 5000, "{a" + ".a" * 3000 + "=1}"])
def test_value_without_end_is_a_configuration_error(tmp_path: Path, value: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"[batch]\nsize = {value}\n")
    with pytest.raises(ConfigError, match=r"is not TOML|nested more than"):
        TrainConfig.from_toml(path)
    with pytest.raises(ConfigError):
        TrainConfig.from_dict(least()).with_overrides([f"batch.size={value}"])


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


def test_file_without_a_label_is_refused() -> None:
    (problem,) = problems_of({"data": {"path": "a"}, "model": least()["model"]})
    assert problem.startswith("data.label is missing; must be a column")


def test_layers_of_the_configuration_are_those_of_the_networks() -> None:
    layers = get_args(get_args(ModelSection.model_fields["layers"].annotation)[0])[0]
    types = {
        name for it in get_args(layers) for name in get_args(it.model_fields["type"].annotation)
    }
    assert types == set(LAYER_TYPES)


@pytest.mark.parametrize(
    ("csv", "problem"),
    [
        ({"separatr": "|"}, 'data.csv.separatr is not known; did you mean "separator"?'),
        ({"separator": 3}, "data.csv.separator is 3; must be"),
        ({"separator": "ab"}, 'data.csv.separator is "ab"; must be'),
        ({"encoding": "klingon"}, 'data.csv.encoding is "klingon"; must be'),
        ({"decimal": ";"}, 'data.csv.decimal is ";"; must be "." or ","'),
        ({"decimal": ",", "separator": ","}, "data.csv.separator is"),
        ({"null_values": "?"}, 'data.csv.null_values is "?"; must be a list of texts'),
        ("|", 'data.csv is "|"; must be a table'),
    ],
)
def test_a_wrong_setting_of_csv_files_is_named(csv: Any, problem: str) -> None:
    (text,) = problems_of(least(data={"csv": csv}))
    assert text.startswith(problem)
    assert "(set [data.csv] " in text or "did you mean" in text or "[data.csv]" in text


def test_a_key_of_a_subtable_can_be_overridden() -> None:
    config = TrainConfig.from_dict(least()).with_overrides(["data.csv.separator=|"])
    assert config.data.csv.separator == "|"
    for override in ("data.csv.separator", "data.path.x=1", "train.seed.a.b=1"):
        with pytest.raises(ConfigError):
            TrainConfig.from_dict(least()).with_overrides([override])
