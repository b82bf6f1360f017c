"""A model of one's own, here a module of PyTorch: every command and method works, or says why not.

One process, or workers in threads: a Ray is started by the README's own example.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from distsgd.cli.app import main
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, ModelError, RunError
from distsgd.models import torch_model
from distsgd.run.callbacks import Callback
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from tests.integration.pools import server_spec, train_with_threads

torch = pytest.importorskip("torch", reason="needs PyTorch: scripts/env --with torch,jax")
pytestmark = pytest.mark.timeout(240)

Command = Callable[..., tuple[int, str]]
SOURCE = """
import torch

from distsgd.models import torch_model


def losses(out, target):
    return torch.nn.functional.cross_entropy(out, target, reduction="none")


def net(inputs, outputs, width):
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, width), torch.nn.GELU(), torch.nn.Linear(width, outputs)
    )


@torch_model
def scores(inputs, outputs, width=16):
    return net(inputs, outputs, width), losses


@torch_model
def probabilities(inputs, outputs, width=16):
    return net(inputs, outputs, width), losses, lambda out: out.softmax(-1)


@torch_model
def number(inputs, outputs):
    def squares(out, target):
        return ((out - target) ** 2).sum(-1)

    return torch.nn.Linear(inputs, outputs), squares
"""


@pytest.fixture
def own(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A user's file next to the digits, in the current directory."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    (place / "model_of_mine.py").write_text(SOURCE)
    importlib.invalidate_caches()
    yield importlib.import_module("model_of_mine")
    sys.modules.pop("model_of_mine", None)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Words in; exit code and all that was said out, on one line."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["distsgd", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), " ".join("".join(capsys.readouterr()).split())

    return run


def values(model: dict[str, Any] | None = None, **sections: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "data": {"path": "digits.parquet", "label": "digit", "test_fraction": 0.2},
        "model": model or {},
        "optimizer": {"type": "momentum", "learning_rate": 0.1},
        "train": {"epochs": 2, "digest_every": 1},
        "parallel": {"workers": 0},
    }
    return {name: found.get(name, {}) | sections.get(name, {}) for name in found.keys() | sections}


def fit(path: str, *, resume: Any = "never", config: Any = None, **options: Any) -> Run:
    return Trainer(config or values(), run_dir=path, **options).fit(resume=resume)


TOML = """
[data]
path = "digits.parquet"
label = "digit"
test_fraction = 0.2
[model]
factory = "model_of_mine:scores"
options = {width = 24}
[train]
epochs = 2
[parallel]
workers = 0
"""


@pytest.mark.usefixtures("own")
def test_each_command_works_with_a_factory_or_says_why_not(place: Path, command: Command) -> None:
    (place / "mine.toml").write_text(TOML)
    code, said = command("train", "mine.toml", "--dry-run")
    assert code == 0
    assert "model model_of_mine:scores(width=24); 64 features, 10 outputs" in said
    code, said = command("train", "mine.toml", "--run-dir", "run")
    assert (code, "test accuracy" in said) == (0, True)
    code, said = command("show", "run")
    assert code == 0
    assert "model model_of_mine:scores(width=24)" in said
    assert "own code model model_of_mine:scores" in said
    assert command("verify", "run")[0] == 0
    held_out = command("evaluate", "run")
    assert (held_out[0], "rows 359" in held_out[1]) == (0, True)
    assert "rows 1,797" in command("evaluate", "run", "--data", "digits.parquet")[1]
    assert command("predict", "run", "--data", "digits.parquet", "--out", "p.parquet")[0] == 0
    predicted = pq.read_table("p.parquet")
    assert predicted.column_names == ["prediction", "score", "outputs"]
    assert predicted["prediction"].to_pylist() == Run.open("run").predict(_digits()).tolist()
    for words in (
        ("weights", "run", "--out", "x.png"),
        ("input-gradient", "run", "--data", "digits.parquet", "--out", "x.png"),
        ("loss", "run", "--weight", "0.weight[0,0]", "--out", "x.png"),
        ("circuit", "run", "--data", "digits.parquet"),
    ):
        code, said = command("draw", *words)
        assert code == 2, said
        assert "trained model_of_mine:scores(width=24); only the inside of layers is shown" in said
    options = ("--batch-sizes", "32", "--workers", "0", "--target", "test_accuracy>=0.5")
    assert command("experiment", "scale", "mine.toml", *options, "--dry-run")[0] == 0
    bench = ("--factory", "model_of_mine:scores", "--layers", "6,3", "--workers", "0")
    assert command("bench", *bench, "--seconds", "0.1")[0] == 0


def _digits() -> Any:
    return pq.read_table("digits.parquet")


@pytest.mark.usefixtures("own")
def test_options_are_set_on_the_command_line_and_belong_to_the_run(
    place: Path, command: Command
) -> None:
    (place / "mine.toml").write_text(TOML)
    code, _ = command("train", "mine.toml", "--run-dir", "run", "--set", "model.options.width=3")
    assert code == 0
    assert Run.open("run").weights["0.weight"].shape == (3, 64)
    code, said = command("train", "mine.toml", "--run-dir", "run", "--resume", "auto")
    assert code == 2
    assert "model.options is {'width': 24}, was {'width': 3}" in said
    code, said = command("train", "mine.toml", "--set", "model.options.depth=3")
    assert code == 2
    assert "got an unexpected keyword argument 'depth'; it takes width" in said


def test_the_same_bits_with_workers_and_after_a_resume(
    own: Any, place: Path, cache_dir: Path
) -> None:
    del own
    config = TrainConfig.from_dict(
        values(
            {"factory": "model_of_mine:scores"},
            train={"steps": 30},
            parallel={"workers": 2, "assignment": "all", "lane_rows": 8},
            checkpoint={"every_steps": 7},
        )
    )
    alone = Trainer(
        config.with_overrides(["parallel.workers=0"]), run_dir="alone", cache_dir=cache_dir
    ).fit()
    wanted = alone.metrics["weights_digest"]
    two = server_spec(config, place / "two", cache_dir=cache_dir)
    assert train_with_threads(two).weights_digest == wanted
    broken = server_spec(config, place / "broken", cache_dir=cache_dir)
    train_with_threads(broken, stop_after=11)
    again = server_spec(config, place / "broken", cache_dir=cache_dir)
    assert train_with_threads(again).weights_digest == wanted
    norms = [Run.open(name).history["noise_scale"].to_pylist() for name in ("alone", "broken")]
    assert norms[0] == norms[1]


def test_handed_in_function_is_found_again_by_its_name(own: Any) -> None:
    run = fit("run", model=own.scores)
    (entry,) = json.loads((run.path / "environment.json").read_text())["own_code"]
    assert (entry["what"], entry["name"]) == ("model", "model_of_mine:scores")
    assert len(entry["source"]) == 64
    opened = Run.open("run")
    assert opened.verify().steps == 46
    assert opened.evaluate() == run.evaluate()
    named = fit("named", config=values({"factory": "model_of_mine:scores"}))
    assert named.metrics["weights_digest"] == run.metrics["weights_digest"]
    assert list(run.weights) == [f"{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]


def test_changed_file_is_said_on_resume_and_on_verify(own: Any, place: Path) -> None:
    def stop(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit("run", model=own.scores, callbacks=[Callback(on_epoch_end=stop)])
    (place / "model_of_mine.py").write_text(SOURCE + "\n# another version\n")
    said = list[str]()
    fit("run", resume="auto", model=own.scores, callbacks=[Callback(on_message=said.append)])
    doubt = "the source of the model model_of_mine:scores has changed since the run was begun"
    assert [text for text in said if doubt in text]
    said.clear()
    Run.open("run").verify(on_message=said.append)
    assert [text for text in said if doubt in text]


@pytest.mark.usefixtures("own")
def test_function_without_a_name_trains_here_resumes_when_handed_in_and_is_not_found() -> None:
    @torch_model
    def make(inputs: int, outputs: int) -> Any:
        def losses(out: Any, target: Any) -> Any:
            return torch.nn.functional.cross_entropy(out, target, reduction="none")

        return torch.nn.Linear(inputs, outputs), losses

    def stop(_: Any) -> None:
        raise ZeroDivisionError

    whole = fit("whole", model=make)
    assert whole.verify().steps == 46  # What fit returned has it.
    with pytest.raises(RunError, match=r"was trained with the model .*make, which has no name"):
        Run.open("whole")
    with pytest.raises(ZeroDivisionError):
        fit("run", model=make, callbacks=[Callback(on_epoch_end=stop)])
    with pytest.raises(ConfigError, match=r"model\.layers is missing"):
        fit("run", resume="auto")
    resumed = fit("run", resume="auto", model=make)
    assert resumed.metrics["weights_digest"] == whole.metrics["weights_digest"]


def test_scores_are_no_probabilities_and_a_third_function_makes_them(own: Any) -> None:
    run = fit("run", model=own.probabilities)
    shown = run.predict_proba(_digits())
    assert shown.shape == (1797, 10)
    np.testing.assert_allclose(shown.sum(axis=1), 1, atol=1e-5)
    run.write_predictions("digits.parquet", "p.parquet")
    assert pq.read_schema("p.parquet").names == ["prediction", "probability", "outputs"]
    scores = fit("scores", model=own.scores)
    assert scores.metrics["weights_digest"] == run.metrics["weights_digest"]
    assert scores.predict(_digits()).tolist() == run.predict(_digits()).tolist()
    with pytest.raises(ModelError, match=r"model_of_mine:scores gives scores, .* a third thing"):
        scores.predict_proba(_digits())


def test_steps_and_history_are_seen_as_those_of_layers(own: Any) -> None:
    seen = list[Any]()
    run = fit(
        "run",
        config=values(train={"steps": 3, "epochs": 1}),
        model=own.scores,
        callbacks=[Callback(on_step=seen.append)],
    )
    assert [view.step for view in seen] == [0, 1, 2]
    view = seen[0]
    assert (view.predictions.shape, view.deltas.shape, view.targets.shape) == (
        (64, 10),
        (64, 10),
        (64,),
    )
    # Of the cross-entropy: softmax minus one-hot.
    wanted = np.exp(view.predictions) / np.exp(view.predictions).sum(1, keepdims=True)
    wanted[np.arange(64), view.targets] -= 1
    np.testing.assert_allclose(view.deltas, wanted, atol=1e-6)
    assert view.weights.keys() == run.weights.keys()
    assert all(scale is not None for scale in run.history["noise_scale"].to_pylist())


def test_first_weights_from_a_file_and_frozen_ones_by_the_names_of_the_module(own: Any) -> None:
    first = fit("first", model=own.scores)
    (file,) = (first.path / "checkpoints").glob("step-*/weights.safetensors")
    config = values(
        {"initial_weights": str(file)},
        optimizer={"frozen": ["0.weight", "2.bias"]},
        train={"steps": 5, "epochs": 1},
    )
    run = fit("run", config=config, model=own.scores)
    kept = {name: np.array_equal(run.weights[name], first.weights[name]) for name in run.weights}
    assert kept == {"0.weight": True, "0.bias": False, "2.weight": False, "2.bias": True}
    with pytest.raises(ConfigError, match=r"must be one of 0\.weight, 0\.bias, 2\.weight, 2\.bias"):
        fit("wrong", config=values(optimizer={"frozen": ["layers.0.weight"]}), model=own.scores)
    with pytest.raises(ModelError, match=r"0\.weight has shape \(16, 64\); must be \(8, 64\)"):
        fit(
            "narrow",
            config=values({"initial_weights": str(file), "options": {"width": 8}}),
            model=own.scores,
        )


def test_integers_are_numbers_where_that_is_said(own: Any) -> None:
    config = values(data={"label_kind": "number"}, optimizer={"learning_rate": 0.001})
    run = fit("run", config=config, model=own.number)
    assert run.metrics["test_accuracy"] is None
    assert run.weights["weight"].shape == (1, 64)
    assert run.predict(_digits()).dtype == np.float32
    run.write_predictions("digits.parquet", "p.parquet")
    assert pq.read_schema("p.parquet").names == ["digit"]
