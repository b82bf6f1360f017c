"""A run of a model of one's own begins with its admission, which is remembered."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.errors import ModelError, NumericsError
from distsgd.models.own_errors import OwnCodeError
from distsgd.run.callbacks import Callback
from distsgd.run.trainer import Trainer

pytest.importorskip("torch", reason="PyTorch is not installed")

HELPER = "SLOPE = 0.1\n"
SOURCE = """
import torch

from helper_of_user import SLOPE


class Net(torch.nn.Module):
    def __init__(self, inputs, outputs, norm, most):
        super().__init__()
        self.first = torch.nn.Linear(inputs, 8)
        self.norm = torch.nn.BatchNorm1d(8) if norm else torch.nn.LayerNorm(8)
        self.last = torch.nn.Linear(8, outputs)
        self.most = most
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, x):
        if self.last.bias.abs().max() > self.most:
            raise ValueError(f"the bias has grown beyond {self.most}")
        hidden = torch.nn.functional.leaky_relu(self.norm(self.first(x)), SLOPE)
        return self.last(hidden)


def make(inputs, outputs, norm=False, most=1e9):
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    return Net(inputs, outputs, norm, most), loss
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with modules of a user's, and rows."""
    (tmp_path / "net_of_user.py").write_text(SOURCE)
    (tmp_path / "helper_of_user.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    x = np.random.default_rng(0).random((64, 3))
    columns = {f"x{i}": x[:, i] for i in range(3)} | {"y": (x.sum(1) > 1.5).astype(int)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    yield tmp_path
    forget()


def forget() -> None:
    """As in a process that starts."""
    for name in ("net_of_user", "helper_of_user"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


class Said(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, message: str) -> None:
        self.lines.append(message)

    @property
    def admitted(self) -> list[str]:
        return [line for line in self.lines if "admitted" in line]


def trainer(code: Path, said: Said, *, run: str = "run", **options: Any) -> Trainer:
    forget()
    config = {
        "data": {"path": str(code / "rows.parquet"), "label": "y"},
        "model": {"factory": "net_of_user:make", "options": options},
        "optimizer": {"learning_rate": 0.5},
        "batch": {"size": 16},
        "train": {"epochs": 3},
        "statistics": {"per_sample": True},
        "parallel": {"workers": 0},
    }
    return Trainer(config, callbacks=[said], run_dir=code / run, cache_dir=code / "cache")


def test_run_says_once_that_its_model_was_admitted_and_how_long_it_took(code: Path) -> None:
    said = Said()
    trainer(code, said).fit()
    (line,) = said.admitted
    assert line.startswith("admitted net_of_user:make in ")
    assert "the same bits twice, no row in another's loss, norms exact (on " in line


def test_admission_is_remembered_for_the_same_model_and_rows(code: Path) -> None:
    first, again = Said(), Said()
    trainer(code, first).plan()
    trainer(code, again).fit()
    assert [line.endswith("as before") for line in first.admitted + again.admitted] == [False, True]
    (kept,) = (code / "cache" / "admitted").iterdir()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["source", "helper", "silent", "options", "damage"])
def test_model_that_may_be_another_is_tried_again(code: Path, what: str) -> None:
    trainer(code, Said()).plan()
    options: dict[str, Any] = {"most": 1e8} if what == "options" else {}
    if what == "source":
        (code / "net_of_user.py").write_text(f"{SOURCE}\n# Another.\n")
    elif what == "helper":
        (code / "helper_of_user.py").write_text("SLOPE = 0.125\n")
    elif what == "silent":  # The bits of the first block are the same.
        (code / "helper_of_user.py").write_text(f"{HELPER}LATER = 1\n")
    elif what == "damage":
        for kept in (code / "cache" / "admitted").iterdir():
            kept.write_text('{"factory": ')
    said = Said()
    trainer(code, said, **options).plan()
    assert len(said.admitted) == 1
    assert "as before" not in said.admitted[0]


def test_factory_without_a_name_is_tried_each_time(code: Path) -> None:
    make = importlib.import_module("net_of_user").make
    config = {
        "data": {"path": str(code / "rows.parquet"), "label": "y"},
        "optimizer": {"learning_rate": 0.5},
        "batch": {"size": 16},
        "train": {"epochs": 1},
        "parallel": {"workers": 0},
    }
    said = Said()
    for _ in range(2):
        Trainer(
            config,
            model=lambda inputs, outputs: make(inputs, outputs, most=1e8),
            callbacks=[said],
            cache_dir=code / "cache",
        ).plan()
    assert not any("as before" in line for line in said.admitted)
    assert len(said.admitted) == 2
    assert not (code / "cache" / "admitted").exists()


NOTHING_HELD = """
import torch


class Scores(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return self.scores.expand(len(x), -1)


def make(outputs):
    return Scores(outputs), lambda out, y: out.sum(1)
"""


def test_model_that_holds_no_numbers_for_its_backward_is_tried(code: Path) -> None:
    (code / "net_of_user.py").write_text(NOTHING_HELD)
    said = Said()
    trainer(code, said).plan()
    assert len(said.admitted) == 1


def test_refusal_leaves_no_run_and_is_not_remembered(code: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelError, match="BatchNorm1d 'norm' mixes samples; GroupNorm"):
            trainer(code, Said(), norm=True).fit()
    assert not (code / "run").exists()
    assert not (code / "cache" / "admitted").exists()


def test_error_in_forward_names_the_step_and_the_line(code: Path) -> None:
    with pytest.raises(OwnCodeError) as found:
        trainer(code, Said(), most=0.05).fit()
    assert found.value.step is not None
    assert found.value.step > 0
    assert "ValueError: the bias has grown beyond 0.05 at step" in str(found.value)
    assert "net_of_user.py" in found.value.frames
    assert "distsgd/" not in found.value.frames


def test_error_in_the_factory_comes_with_its_traceback(code: Path) -> None:
    (code / "net_of_user.py").write_text(
        SOURCE.replace("    loss = torch", "    [][0]\n    loss = torch")
    )
    with pytest.raises(OwnCodeError, match="net_of_user:make raises IndexError: list index"):
        trainer(code, Said()).fit()


def test_profile_of_the_model_is_recorded_and_another_is_refused(code: Path) -> None:
    run = trainer(code, Said()).fit()
    path = run.directory.environment_path
    recorded = json.loads(path.read_text())
    model = recorded["numerics"]["model"]
    assert set(model) >= {"torch", "capability", "probe"}
    assert run.verify().steps == 12
    model["capability"] = "another"
    path.write_text(json.dumps(recorded))
    with pytest.raises(NumericsError, match=r"model's capability another \(now "):
        run.verify()
    told: list[str] = []
    assert run.verify(accept_numerics=True, on_message=told.append).steps == 12
    assert any("another numerics profile: model's capability" in line for line in told)
