"""What a configuration cannot be: each mistake is told, with value, rule and way out."""

from pathlib import Path
from typing import Any

import pytest

from distsgd.base.settings import quoted
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.nn.layer_types import LAYER_TYPES
from tests.unit.config.test_train_config import least, problems_of

WRONG: dict[str, Any] = {
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
TYPES = f"{quoted(LAYER_TYPES)} (edit [model] layers)"
A_LAYER = f"must be a table whose type is one of {TYPES}"
TOLD = [
    (
        "data.path is [1]; must be a file, a list of files, a glob or a prepared directory"
        " (set [data] path)"
    ),
    "data.label is missing; must be a column or a list of columns (set [data] label)",
    'data.labell is not known; did you mean "label"?',
    (
        "data.test_fraction is 0.2 with data.test_path set; only one may choose the test rows"
        " (remove one of them from [data])"
    ),
    "model.layers[0].units is 0; must be a whole number, 1 or more (edit [model] layers)",
    'model.layers[0].unit is not known; did you mean "units"?',
    f'model.layers[1] is {{"units": 3}}; {A_LAYER}',
    f'model.layers[2] is {{"type": "conv"}}; {A_LAYER}',
    f"model.layers[3] is 5; {A_LAYER}",
    (
        'model.loss is "adam"; must be "softmax_cross_entropy", "sigmoid_cross_entropy",'
        ' "squared_error", "quadratic", "cross_entropy", "exponential", "hellinger",'
        ' "kullback_leibler", "generalised_kullback_leibler", "itakura_saito",'
        ' "mean_absolute", "huber", "hinge" or "module:Class" of your own (set [model] loss)'
    ),
    'optimiser is not known; did you mean "optimizer"?',
    ("optimizer.learning_rate is nan; must be a number above 0 (set [optimizer] learning_rate)"),
    'batch.size is 0; must be 1 to the number of rows or "full" (set [batch] size)',
    "train.lanes is not known; did you mean [parallel] lanes?",
    "train.epochs is true; must be a whole number, 1 or more (set [train] epochs)",
    "parallel is 4; must be a table (write [parallel], its keys below it)",
    (
        'schedule.every_steps is missing; must be a whole number, 1 or more with type "step"'
        " (set [schedule] every_steps)"
    ),
]


def test_everything_wrong_is_told_at_once() -> None:
    assert sorted(problems_of(WRONG)) == sorted(TOLD)


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
        ({"data": {"stratify": True}}, "data.stratify is true with data.test_fraction 0"),
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
        (
            {"optimizer": {"type": "sgd", "momentum": 0.9}},
            'optimizer.momentum is 0.9 with type "sgd"; it has no momentum (remove it from [optim',
        ),
        (
            {"schedule": {"final_fraction": 0.5}},
            'schedule.final_fraction is 0.5 with type "constant"; it has no final_fraction (remove',
        ),
        (
            {"optimizer": {"type": "my.rules:Mine", "momentum": 0.9}},
            'optimizer.momentum is 0.9 with type "my.rules:Mine"; settings of a rule of your own',
        ),
        (
            {"optimizer": {"options": {"momentum": 0.9}}},
            'optimizer.options is {"momentum": 0.9} with type "sgd"; its settings are keys of the',
        ),
        ({"batch": {"sampler_options": {"pool": 3}}}, 'batch.sampler_options is {"pool": 3} with'),
        (
            {"batch": {"sampler": "two stage"}},
            'batch.sampler is "two stage"; must be "permutation"',
        ),
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
        ("parallel", "resources", {"CPU": -1}),
        ("parallel", "resources", {"memory": "2 apples"}),
        ("parallel", "label_selector", {"zone": 1}),
        ("parallel", "placement", "strict"),
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


@pytest.mark.parametrize(
    ("sections", "way_out"),
    [
        (
            {"optimizer": {"type": "sgd", "momentum": 0.9}},
            '(remove it from [optimizer], or set type to "momentum" or "nesterov")',
        ),
        (
            {"optimizer": {"type": "my.rules:Mine", "momentum": 0.9}},
            "(set [optimizer] options = {momentum = 0.9})",
        ),
        ({"optimizer": {"type": "nestrov"}}, 'did you mean "nesterov"? (set [optimizer] type)'),
        (
            {"optimizer": {"type": "adamw", "beta": 0.5}},
            'optimizer.beta is not known; did you mean "beta1" or "beta2"?',
        ),
        (
            {"optimizer": {"type": "mine:Rule", "beta": 0.5}},
            "rule of your own go into options (set [optimizer] options = {beta = 0.5})",
        ),
        (
            {"optimizer": {"type": "my rules"}},
            'or "module:Class" for a rule of your own (set [optimizer] type)',
        ),
    ],
)
def test_setting_that_does_not_fit_the_rule_is_answered_by_the_way_out(
    sections: dict[str, Any], way_out: str
) -> None:
    (problem,) = problems_of(least(**sections))
    assert problem.endswith(way_out)


def test_directory_in_place_of_the_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        TrainConfig.from_toml(tmp_path)


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, "9" * 5000, "{a" + ".a" * 3000 + "=1}"])
def test_value_without_end_is_a_configuration_error(tmp_path: Path, value: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"[batch]\nsize = {value}\n")
    with pytest.raises(ConfigError, match=r"is not TOML|nested more than"):
        TrainConfig.from_toml(path)
    with pytest.raises(ConfigError):
        TrainConfig.from_dict(least()).with_overrides([f"batch.size={value}"])


def test_file_without_a_label_is_refused() -> None:
    (problem,) = problems_of({"data": {"path": "a"}, "model": least()["model"]})
    assert problem.startswith("data.label is missing; must be a column")


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


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"batch": {"sampling": "permutation"}}, 'sampling is not known; did you mean "sampler"?'),
        ({"parallel": {"exchange": "zmq"}}, "parallel.exchange is not known; known here: workers"),
        ({"parallel": {"assignment": "measured"}}, 'must be "autotune" (as many as make it'),
        ({"chaos": {"faults": []}}, "chaos is not known; known here: data, model"),
    ],
)
def test_name_of_an_older_version_is_unknown(sections: dict[str, Any], problem: str) -> None:
    (text,) = problems_of(least(**sections))
    assert problem in text
