"""What a configuration or a run directory names is looked at before it is called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, DistSGDError
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

X_NI = np.arange(32.0).reshape(16, 2) / 32
ROWS = X_NI, X_NI @ np.array([1.0, -1.0])
KEYS = {
    "optimizer.type": "optimizer.options",
    "batch.sampler": "batch.sampler_options",
    "model.loss": "model.loss_options",
    "parallel.observer": "parallel.observer_options",
    "parallel.worker": None,
}
OWN = """
from distsgd.lessons.two_stage import TwoStageSampler
from distsgd.optim.rules import Momentum


class Rule(Momentum):
    pass


class Sampler(TwoStageSampler):
    pass
"""


def values() -> dict[str, dict[str, Any]]:
    return {
        "data": {"test_fraction": 0.25},
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "optimizer": {"learning_rate": 0.05},
        "batch": {"size": 4},
        "train": {"epochs": 2},
        "parallel": {"workers": 0},
    }


def put(config: dict[str, Any], key: str, name: str, options: dict[str, Any]) -> None:
    """Name `name` with its options; other settings of the part that stood there go."""
    section, _, last = key.partition(".")
    if key == "optimizer.type":
        config[section] = {"learning_rate": 0.05}
    config[section][last] = name
    if (place := KEYS[key]) is not None:
        config[section][place.partition(".")[2]] = options


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["subprocess:getoutput", "subprocess:Popen", "os:system"])
def test_function_in_place_of_a_part_is_never_called_by_training(
    key: str, name: str, tmp_path: Path
) -> None:
    canary, config = tmp_path / "canary", values()
    option = {"subprocess:getoutput": "cmd", "subprocess:Popen": "args"}.get(name, "command")
    put(config, key, name, {option: f"touch {canary}"})
    with pytest.raises(ConfigError, match=name) as caught:
        Trainer(TrainConfig.from_dict(config), data=ROWS, run_dir=tmp_path / "run").fit()
    assert key in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["nowhere_to_be_found:Part", "os:getcwd"])
def test_dry_run_says_what_is_wrong_with_a_part_before_rows_are_read(
    key: str, name: str, tmp_path: Path
) -> None:
    config = values() | {"data": {"path": str(tmp_path / "no rows.csv"), "label": "y"}}
    put(config, key, name, {})
    with pytest.raises(ConfigError, match=f"{key}.*{name}"):
        Trainer(TrainConfig.from_dict(config), run_dir=tmp_path / "run").plan()


def test_dry_run_says_what_is_wrong_with_all_parts_at_once(tmp_path: Path) -> None:
    config = values() | {"data": {"path": str(tmp_path / "no rows.csv"), "label": "y"}}
    for key in ("batch.sampler", "parallel.worker"):
        put(config, key, "nowhere_to_be_found:Part", {})
    with pytest.raises(ConfigError) as caught:
        Trainer(TrainConfig.from_dict(config), run_dir=tmp_path / "run").plan()
    assert [text.partition(":")[0] for text in caught.value.problems] == [
        "batch.sampler",
        "parallel.worker",
    ]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("ask", ["evaluate", "verify"])
def test_function_named_by_a_run_directory_is_never_called(
    key: str, ask: str, tmp_path: Path
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "run"
    Trainer(TrainConfig.from_dict(values()), data=ROWS, run_dir=path).fit()
    config = json.loads((path / "config.json").read_text())
    put(config, key, "subprocess:getoutput", {"cmd": f"touch {canary}"})
    (path / "config.json").write_text(json.dumps(config))
    not_looked_for = {"evaluate": ["optimizer.type", "batch.sampler", "parallel.observer"]}
    if key in not_looked_for.get(ask, ["parallel.observer"]):
        getattr(Run.open(path), ask)()
    else:
        with pytest.raises(DistSGDError, match="subprocess:getoutput"):
            getattr(Run.open(path), ask)()
    assert not canary.exists()


def test_run_whose_rule_and_sampler_are_gone_is_evaluated_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = values()
    put(config, "optimizer.type", "gone_parts:Rule", {})
    put(config, "batch.sampler", "gone_parts:Sampler.of", {"pool": 6})
    run = Trainer(TrainConfig.from_dict(config), data=ROWS, run_dir=tmp_path / "run").fit()
    before = run.evaluate(), run.predict(X_NI).tolist()
    assert before[0].test_loss == run.metrics["test_loss"]
    (tmp_path / "gone_parts.py").unlink()
    del sys.modules["gone_parts"]
    again = Run.open(run.path)
    assert (again.evaluate(), again.predict(X_NI).tolist()) == before
    with pytest.raises(ConfigError, match=r'"gone_parts:.*" cannot be found'):
        again.verify()


def test_module_that_fails_when_imported_is_told_by_every_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_part.py").write_text("nobody")
    monkeypatch.syspath_prepend(tmp_path)
    for key in KEYS:
        config = values()
        put(config, key, "broken_part:Part", {})
        with pytest.raises(ConfigError, match="module broken_part raises NameError"):
            Trainer(TrainConfig.from_dict(config), data=ROWS, run_dir=tmp_path / "run").fit()


@pytest.mark.parametrize("key", KEYS)
def test_relative_name_is_refused(key: str) -> None:
    config = values()
    put(config, key, ".x:Y", {})
    with pytest.raises(ConfigError, match=r'is "\.x:Y"|"\.x:Y" is no name'):
        TrainConfig.from_dict(config)
