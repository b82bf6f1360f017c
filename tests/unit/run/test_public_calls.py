"""Every public call answers a mistake by an error of ours, whatever is handed to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd import config as sections
from distsgd.config import DataSection, TrainConfig
from distsgd.data.prepare.prepare import PrepareOptions, prepare
from distsgd.data.tables import arrays_source
from distsgd.errors import ConfigError
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from tests.wrong_input import check_only_ours

LEAST: dict[str, Any] = {
    "data": {"label": "y"},
    "model": {"layers": [{"type": "dense", "units": 2}], "loss": "quadratic"},
    "batch": {"size": 2},
    "train": {"steps": 2},
    "parallel": {"workers": 0},
}
ROWS = np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2)
JUNK: list[Any] = [
    None, 5, -1, 1.5, float("nan"), True, "", "x", "a\0b", b"x", [], (), {}, [1], (None,), {1: 2},
    {"a": 1}, {"data": 5}, {"model": []}, object(), np.ones(2), print, Path("/dev/null/x"),
]  # fmt: skip


def only_ours(call: Callable[[Any], object], values: list[Any] = JUNK) -> None:
    check_only_ours(call, values)


def test_a_whole_configuration_is_checked_however_it_is_made() -> None:
    made = TrainConfig(**LEAST)
    assert made == TrainConfig.from_dict(LEAST)
    assert TrainConfig(data=made.data, model=made.model, train=made.train).data == made.data
    with pytest.raises(ConfigError) as caught:
        TrainConfig(
            data=DataSection(path="rows.parquet", label="y"),
            model=LEAST["model"],
            batch={"size": 0},  # type: ignore[arg-type]
            train={"seed": "x"},  # type: ignore[arg-type]
            trian={},  # type: ignore[call-arg]
        )
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "batch.size is 0",
        'train.seed is "x"',
        "trian is not known",
    ]
    with pytest.raises(ConfigError, match=r"names 2 columns with data\.one_hot"):
        TrainConfig(**LEAST | {"data": {"label": ["a", "b"], "one_hot": True}})


def test_a_section_by_itself_is_checked_too() -> None:
    with pytest.raises(ConfigError) as caught:
        DataSection(test_fraction=2.0, stratfy=True)  # type: ignore[call-arg]
    assert caught.value.problems == (
        "data.test_fraction is 2.0; must be at least 0 and below 1 (give another test_fraction)",
        'data.stratfy is not known; did you mean "stratify"?',
    )
    assert DataSection(test_fraction=0.5).test_fraction == 0.5


@pytest.mark.parametrize("change", [lambda c: setattr(c, "train", 3), lambda c: delattr(c, "data")])
def test_a_configuration_that_is_changed_says_how_to_make_another(
    change: Callable[[TrainConfig], None],
) -> None:
    with pytest.raises(ConfigError, match=r"immutable; make another one with config\.with_overr"):
        change(TrainConfig(**LEAST))


@pytest.mark.parametrize("name", sections.__all__)
def test_sections_give_our_error_for_anything(name: str) -> None:
    section = getattr(sections, name)
    only_ours(section)
    for key in section.model_fields:
        only_ours(lambda value, key=key: section(**{key: value}))  # type: ignore[misc]


def test_configurations_give_our_error_for_anything() -> None:
    config = TrainConfig(**LEAST)
    only_ours(TrainConfig.from_toml)
    only_ours(TrainConfig.from_dict)
    only_ours(lambda value: TrainConfig.from_dict(LEAST, base=value))
    only_ours(config.with_overrides)
    only_ours(lambda value: config.with_overrides([value]))
    for name in LEAST:
        only_ours(lambda value, name=name: TrainConfig(**LEAST | {name: value}))  # type: ignore[misc]


@pytest.mark.parametrize(
    "name",
    [
        "data",
        "model",
        "worker",
        "rule",
        "run_dir",
        "cache_dir",
        "callbacks",
        "initial_weights",
        "resume",
        "accept_numerics",
    ],
)
def test_trainer_gives_our_error_for_anything(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    only_ours(lambda value: Trainer(value, data=ROWS))
    config, of_fit = TrainConfig(**LEAST), ("initial_weights", "resume", "accept_numerics")

    def fit(value: Any) -> None:
        if name in of_fit:
            Trainer(config, data=ROWS).fit(**{name: value})
        else:
            Trainer(config, **{"data": ROWS} | {name: value}).fit()

    only_ours(fit)


def test_prepare_gives_our_error_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, options = arrays_source(ROWS[0], ROWS[1][:, 0]), PrepareOptions(("label",))
    outs = (tmp_path / str(number) for number in range(1000))
    only_ours(lambda value: prepare(value, next(outs), options=options))
    only_ours(lambda value: prepare([value], next(outs), options=options))
    only_ours(lambda value: prepare(source, value, options=options))
    only_ours(lambda value: prepare(source, next(outs), options=value))
    rest = [value for value in JUNK if value is not print]
    only_ours(lambda v: prepare(source, next(outs), options=options, on_progress=v), rest)


def test_calls_on_a_run_give_our_error_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Trainer(TrainConfig(**LEAST), data=ROWS, run_dir=tmp_path / "run").fit()
    only_ours(Run.open)
    only_ours(run.predict)
    only_ours(run.predict_proba)
    only_ours(run.evaluate)
    only_ours(lambda value: run.evaluate((value, value)))
    only_ours(lambda value: run.evaluate(cache_dir=value))
    only_ours(lambda v: run.verify(num_workers=v), [-1, 1.5, True, "x", None, [], np.ones(2)])
    only_ours(lambda value: run.verify(cache_dir=value))
    only_ours(lambda value: run.verify(on_message=value), [5, "x", [], {}])
    only_ours(lambda value: run.write_predictions(value, tmp_path / "a.parquet"))
    only_ours(lambda value: run.write_predictions(run.path, value))
    assert not (tmp_path / "a.parquet").exists()
