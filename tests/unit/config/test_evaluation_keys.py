"""When a run is evaluated and what ends it, as a configuration says it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from tests.unit.config.test_train_config import EXAMPLE, least, problems_of

KEYS = ("evaluate_every_epochs", "evaluate_every_steps", "evaluate_every_samples")


def keys_of(config: TrainConfig) -> tuple[int | None, ...]:
    return tuple(getattr(config.train, key) for key in KEYS)


@pytest.mark.parametrize(
    ("train", "found"),
    [
        ({}, (1, None, None)),
        ({"evaluate_every_epochs": 3}, (3, None, None)),
        ({"evaluate_every_steps": 10}, (None, 10, None)),
        ({"evaluate_every_samples": 1000}, (None, None, 1000)),
        ({"evaluate_every_samples": 1, "evaluate_every_epochs": None}, (None, None, 1)),
    ],
)
def test_one_grid_is_set_and_its_record_gives_an_equal_configuration(
    train: dict[str, Any], found: tuple[int | None, ...]
) -> None:
    config = TrainConfig.from_dict(least(train=train))
    assert keys_of(config) == found
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_record_without_the_new_keys_is_the_same_configuration() -> None:
    config = TrainConfig.from_dict(least())
    old = config.to_dict()
    for key in ("evaluate_every_steps", "evaluate_every_samples", "target"):
        del old["train"][key]
    assert TrainConfig.from_dict(old).canonical() == config.canonical()


@pytest.mark.parametrize("key", KEYS)
def test_override_takes_the_place_of_another_grid(key: str) -> None:
    for before in (TrainConfig.from_toml(EXAMPLE), TrainConfig.from_dict(least())):
        config = before.with_overrides([f"train.{key}=7"])
        assert keys_of(config) == tuple(7 if other == key else None for other in KEYS)
        assert config.canonical() != before.canonical()


EPOCHS, STEPS, SAMPLES = (f"train.{key}" for key in KEYS)
ONE = "only one may say when a run is evaluated (keep one of them in [train])"
NONE = "are all missing; one must say when a run is evaluated (set [train] evaluate_every_epochs)"
TARGET = 'must be "test_accuracy >= NUMBER" or "test_loss <= NUMBER"'


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((1, 5, None), f"{EPOCHS} is 1 and {STEPS} is 5; {ONE}"),
        ((None, 5, 6), f"{STEPS} is 5 and {SAMPLES} is 6; {ONE}"),
        ((2, 3, 4), f"{EPOCHS} is 2 and {STEPS} is 3 and {SAMPLES} is 4; {ONE}"),
        ((None, None, None), f"{EPOCHS}, {STEPS}, {SAMPLES} {NONE}"),
    ],
)
def test_two_grids_and_none_are_told_with_all_keys_and_the_way_out(
    values: tuple[int | None, ...], line: str
) -> None:
    train = dict(zip(KEYS, values, strict=True))
    assert problems_of(least(train=train)) == (line,)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10"])
def test_grid_is_a_count(key: str, wrong: object) -> None:
    rule = f"must be a whole number, 1 or more (set [train] {key})"
    assert problems_of(least(train={key: wrong})) == (
        f"train.{key} is {json.dumps(wrong)}; {rule}",
    )


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        (0.95, f"{TARGET}, or left out"),
        ("accuracy>=0.9", f"{TARGET} (did you mean 'test_accuracy'?)"),
    ],
)
def test_what_is_no_target_is_told_with_the_rule(target: object, rest: str) -> None:
    line = f"train.target is {json.dumps(target)}; {rest} (set [train] target)"
    assert problems_of(least(train={"target": target})) == (line,)


def test_wrong_key_hides_no_wrong_target() -> None:
    train = {"evaluate_every_steps": 0, "target": "test_loss>=1"}
    assert len(problems_of(least(train=train))) == 2


def test_two_overrides_do_not_take_the_place_of_each_other() -> None:
    overrides = ["train.evaluate_every_steps=5", "train.evaluate_every_samples=6"]
    with pytest.raises(ConfigError, match="only one may say when a run is evaluated"):
        TrainConfig.from_toml(EXAMPLE).with_overrides(overrides)


def test_target_has_one_spelling_and_is_a_bare_word_of_an_override() -> None:
    config = TrainConfig.from_toml(EXAMPLE)
    one = config.with_overrides(["train.target=test_accuracy>=0.95"])
    other = config.with_overrides(['train.target=" test_accuracy >= 0.950 "'])
    assert one.train.target == "test_accuracy >= 0.95"
    assert one.canonical() == other.canonical() != config.canonical()
    assert TrainConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one
