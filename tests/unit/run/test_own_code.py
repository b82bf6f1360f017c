"""A worker, a rule, a model of one's own, handed to the trainer: named and found, or refused."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, RunError, VerificationError
from distsgd.nn.layers import Dense, Flatten, Layer
from distsgd.nn.network import Network
from distsgd.optim.rules import Momentum
from distsgd.run.callbacks import Callback
from distsgd.run.own_code import check_own_code
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from distsgd_workers.gradient_worker import GradientWorker

ROWS = np.arange(32.0).reshape(16, 2) / 32, np.arange(16.0) / 16
SOURCE = """
from dataclasses import dataclass

import numpy as np

from distsgd_workers.gradient_worker import GradientWorker


class Halved(GradientWorker):
    def compute_block(self, batch, weights_P, gradient_P):
        found = super().compute_block(batch, weights_P, gradient_P)
        if gradient_P is not None:
            gradient_P *= gradient_P.dtype.type(0.5)
        return found


@dataclass(frozen=True)
class Sign:
    beta: float = 0.5

    def init(self, weights):
        return {}

    def update_inplace(self, weights, mean_grad, *, state, learning_rate, num_updates):
        np.sign(mean_grad, out=mean_grad)
        weights -= mean_grad * weights.dtype.type(learning_rate * self.beta)
"""


def config(**optimizer: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "data": {"test_fraction": 0.25},
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
            "optimizer": {"learning_rate": 0.05} | optimizer,
            "batch": {"size": 4},
            "train": {"epochs": 4, "digest_every": 1},
            "parallel": {"workers": 0},
        }
    )


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of a user's, which is importable."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_of_user.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    importlib.invalidate_caches()
    yield importlib.import_module("own_of_user")
    sys.modules.pop("own_of_user", None)


def fit(path: Path, *, resume: Any = "never", **options: Any) -> Run:
    wanted = options.pop("config", config())
    return Trainer(wanted, data=ROWS, run_dir=path, **options).fit(resume=resume)


def record(run: Run) -> list[dict[str, Any]]:
    environment = json.loads((run.path / "environment.json").read_text())
    found: list[dict[str, Any]] = environment["own_code"]
    return found


def test_importable_code_is_named_in_the_run_and_found_again(own: Any, tmp_path: Path) -> None:
    result = fit(tmp_path / "run", worker=own.Halved, rule=own.Sign(beta=0.25))
    assert result.config.parallel.worker == "own_of_user:Halved"
    assert result.config.optimizer.type == "own_of_user:Sign"
    assert result.config.optimizer.options == {"beta": 0.25}
    assert [(entry["what"], entry["name"]) for entry in record(result)] == [
        ("worker", "own_of_user:Halved"),
        ("rule", "own_of_user:Sign"),
    ]
    assert all(len(entry["source"]) == 64 for entry in record(result))
    opened = Run.open(result.path)
    assert opened.verify().steps == 12
    assert opened.evaluate().test_loss == result.metrics["test_loss"]
    named = fit(
        tmp_path / "named",
        worker="own_of_user:Halved",
        config=config(type="own_of_user:Sign", options={"beta": 0.25}),
    )
    assert named.metrics["weights_digest"] == result.metrics["weights_digest"]
    assert named.metrics["weights_digest"] != fit(tmp_path / "plain").metrics["weights_digest"]


def test_changed_source_is_said_on_resume_and_on_verify(own: Any, tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise ZeroDivisionError

    path, said = tmp_path / "run", list[str]()
    with pytest.raises(ZeroDivisionError):
        fit(path, rule=own.Sign(), callbacks=[Callback(on_epoch_end=stop)])
    file = tmp_path / "code" / "own_of_user.py"
    file.write_text(SOURCE.replace("np.sign(mean_grad, out=mean_grad)", "mean_grad *= 3"))
    fit(path, resume="auto", rule=own.Sign(), callbacks=[Callback(on_message=said.append)])
    says = "WARNING: .*the source of the rule own_of_user:Sign has changed since the run was begun"
    assert [text for text in said if re.search(says, text)]
    said.clear()
    assert Run.open(path).verify(on_message=said.append).steps == 12
    assert [text for text in said if re.search(says, text)]
    (path / "digests.jsonl").unlink()
    with pytest.raises(VerificationError, match=r"the source of the rule .* has changed"):
        Run.open(path).verify()


def test_source_that_is_not_found_is_not_called_changed(own: Any, tmp_path: Path) -> None:
    result, said = fit(tmp_path / "run", worker=own.Halved), list[str]()
    assert check_own_code(result.directory) == ()
    del sys.modules["own_of_user"]
    (tmp_path / "code" / "own_of_user.py").rename(tmp_path / "code" / "moved.py")
    importlib.invalidate_caches()
    (doubt,) = check_own_code(result.directory)
    assert doubt.startswith(
        "the worker own_of_user:Halved cannot be compared with that before: "
        '"own_of_user:Halved" cannot be found'
    )
    with pytest.raises(ConfigError, match="cannot be found"):
        Run.open(result.path).verify(on_message=said.append)
    assert [text for text in said if "cannot be compared" in text]


def test_built_in_rule_is_written_as_its_settings(tmp_path: Path) -> None:
    result = fit(tmp_path / "run", rule=Momentum(momentum=0.5))
    optimizer = result.config.optimizer
    assert (optimizer.type, optimizer.learning_rate) == ("momentum", 0.05)
    said = fit(tmp_path / "said", config=config(type="momentum", momentum=0.5))
    assert result.metrics["weights_digest"] == said.metrics["weights_digest"]
    assert record(result) == []


def test_model_is_written_as_the_section_that_makes_it(tmp_path: Path) -> None:
    model = Network([Dense(3, "relu"), Dense(1)], "huber", (2,))
    values = {
        name: table
        for name, table in config().model_dump(mode="json", exclude_unset=True).items()
        if name != "model"
    }
    result = fit(tmp_path / "run", config=values, model=model)
    assert Run.open(result.path).model == model
    assert result.verify().steps == 12
    assert (
        fit(tmp_path / "both", model=model).metrics["weights_digest"]
        == (result.metrics["weights_digest"])
    )


def test_model_for_other_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.input_shape is \(5,\); must be \(2,\)"):
        fit(tmp_path / "run", model=Network([Dense(1)], "quadratic", (5,)))
    with pytest.raises(ConfigError, match=r"model\.input_shape is \(3, 1\); must be axes of 2 num"):
        fit(tmp_path / "run", model=Network([Flatten(), Dense(1)], "quadratic", (3, 1)))
    assert not (tmp_path / "run").exists()


def test_model_of_rows_with_axes_says_so_in_the_configuration(tmp_path: Path) -> None:
    model = Network([Flatten(), Dense(3, "relu"), Dense(1)], "huber", (2, 1))
    result = fit(tmp_path / "run", model=model)
    assert result.config.data.input_shape == (2, 1)
    opened = Run.open(result.path)
    assert opened.model == model
    assert opened.verify().steps == 12
    assert opened.predict(ROWS[0]).shape == (16,)
    other = config().with_overrides(["data.input_shape=[1,2]"])
    with pytest.raises(
        ConfigError, match=r"data\.input_shape is \[1, 2\]; must be \[2, 1\], as the"
    ):
        fit(tmp_path / "other", config=other, model=model)


@dataclass(frozen=True, slots=True)
class Squares(Layer):
    """A layer that no configuration knows."""

    type = "of_a_notebook"

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def __call__(self, x: Any, parameters: Mapping[str, Any]) -> Any:
        del parameters
        return x * x


def nameless(what: str) -> Any:
    """As a notebook makes them: no other process can import it."""

    class Worker(GradientWorker):
        """Of its own."""

    class Rule:
        """Plain."""

        def init(self, weights: Array) -> dict[str, Array]:
            del weights
            return {}

        def update_inplace(self, weights: Array, mean_grad: Array, **more: Any) -> None:
            weights -= mean_grad * weights.dtype.type(more["learning_rate"])

    model = Network([Squares(), Dense(1)], "quadratic", (2,))
    return {"worker": Worker, "rule": Rule(), "model": model}[what]


class Plain:
    """A rule that is no dataclass; what `settings` are stands in no field."""

    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)

    def init(self, weights: Array) -> dict[str, Array]:
        del weights
        return {}

    def update_inplace(self, weights: Array, mean_grad: Array, **more: Any) -> None:
        weights -= mean_grad * weights.dtype.type(more["learning_rate"])


class Slotted(Plain):
    """Its setting stands in no dictionary."""

    __slots__ = ("beta",)


@dataclass(frozen=True)
class Fields(Plain):
    """Its field is no plain value."""

    table: Any = None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Plain(beta=0.5), "it is no dataclass, so that its settings have no names; make it a"),
        (Slotted(), "it is no dataclass, so that its settings have no names; make it a"),
        (Fields(np.ones(3)), "not all of its fields are plain values; use numbers"),
    ],
)
def test_rule_whose_settings_have_no_names_says_so_where_workers_need_it(
    rule: Any, said: str
) -> None:
    alone = Trainer(config(), data=ROWS, rule=rule)
    assert alone.path is None
    with pytest.raises(ConfigError) as caught:
        Trainer(config().with_overrides(["parallel.workers=2"]), data=ROWS, rule=rule)
    text = str(caught.value)
    assert text.startswith("parallel.workers is 2, and other processes cannot make the rule ")
    assert said in text
    assert "train in this process" in text


def test_rule_without_settings_need_be_no_dataclass(tmp_path: Path) -> None:
    result = fit(tmp_path / "run", rule=Plain())
    assert [entry["name"] for entry in record(result)] == [f"{__name__}:Plain"]


@pytest.mark.parametrize("what", ["worker", "rule", "model"])
def test_code_without_a_name_trains_here_and_says_that_it_cannot_be_found(
    what: str, tmp_path: Path
) -> None:
    thing, path = nameless(what), tmp_path / "run"
    result = fit(path, **{what: thing})
    (entry,) = record(result)
    assert (entry["what"], entry["name"], entry["source"]) == (what, None, None)
    assert result.predict(ROWS[0]).shape == (16,)
    with pytest.raises(RunError, match=f"was trained with the {what} .*has no name by which"):
        Run.open(path).verify()
    (path / "result.json").unlink()
    with pytest.raises(RunError, match="hand it to Trainer again"):
        fit(path, resume="auto")
    said: list[str] = []
    again = fit(path, resume="auto", callbacks=[Callback(on_message=said.append)], **{what: thing})
    assert again.metrics["weights_digest"] == result.metrics["weights_digest"]
    assert [text for text in said if f"the {what} " in text and "without a name" in text]
    assert again.verify().steps == 12  # Which has it in memory.
    with pytest.raises(ConfigError, match=f"other processes cannot import the {what}"):
        again.verify(num_workers=1)


@pytest.mark.parametrize("what", ["worker", "rule", "model"])
def test_code_without_a_name_is_refused_where_workers_need_it(what: str, tmp_path: Path) -> None:
    with_workers = config().with_overrides(["parallel.workers=2"])
    says = rf"parallel\.workers is 2, and other processes cannot import the {what} .*workers = 0"
    with pytest.raises(ConfigError, match=says):
        Trainer(with_workers, data=ROWS, run_dir=tmp_path / "run", **{what: nameless(what)})


def test_callbacks_are_written_down_and_needed_by_nothing(tmp_path: Path) -> None:
    class Quiet(Callback):
        """Of a notebook."""

    result = fit(tmp_path / "run", callbacks=[Quiet(), Callback(on_message=lambda _: None)])
    (entry,) = record(result)
    assert (entry["what"], entry["name"]) == ("callback", None)
    assert Run.open(result.path).verify().steps == 12


@pytest.mark.parametrize(
    ("handed", "says"),
    [
        ({"worker": 5}, "worker is 5; must be a class"),
        ({"rule": 5}, "rule is 5; must be an update rule"),
        ({"model": 5}, r"model is 5; must be a distsgd\.Network"),
        ({"worker": "nowhere:Nothing"}, "nowhere:Nothing.*cannot be found"),
        ({"rule": "nowhere:Nothing"}, "nowhere:Nothing.*cannot be found"),
    ],
)
def test_what_is_nothing_of_the_kind_is_refused(
    handed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        fit(tmp_path / "run", **handed)
    assert not (tmp_path / "run").exists()
