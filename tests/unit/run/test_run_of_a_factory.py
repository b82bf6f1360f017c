"""A run whose model a factory in a file makes: opened again, or refused by what was changed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

from distsgd.config import TrainConfig
from distsgd.errors import RunError
from distsgd.models.factory import LIBRARY_BYTES
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

ROWS = {name: np.arange(16.0) / 16 for name in ("a", "b", "y")}
FIRST = "nn.Linear(inputs, widths[0]), nn.GELU()"
SOURCE = f"""
from torch import nn


def make(inputs, outputs, widths):
    return nn.Sequential({FIRST}, nn.Linear(*widths), nn.Linear(widths[1], outputs))
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's file, importable."""
    (tmp_path / "code").mkdir()
    path = tmp_path / "code" / "listed_model.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(path.parent)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("listed_model", None)


def trainer(place: Path, model: dict[str, Any]) -> Trainer:
    pq.write_table(pa.table(ROWS), place / "rows.parquet")
    sections = {
        "data": {"path": str(place / "rows.parquet"), "label": "y"},
        "model": model | {"loss": "squared_error"},
        "batch": {"size": 4},
        "train": {"steps": 2},
        "parallel": {"workers": 0},
    }
    return Trainer(TrainConfig.from_dict(sections), run_dir=place / "run")


NAMED = {"factory": "listed_model:make", "options": {"widths": [5, 4]}}


def test_file_that_makes_other_parameters_is_named_when_the_run_is_opened(
    file: Path, tmp_path: Path
) -> None:
    run = trainer(tmp_path, NAMED).fit()
    assert Run.open(run.path).model.to_dict() == run.model.to_dict()
    file.write_text(SOURCE.replace(FIRST, "nn.GELU(), nn.Linear(inputs, widths[0])"))
    sys.modules.pop("listed_model")
    importlib.invalidate_caches()
    with pytest.raises(RunError) as caught:
        Run.open(run.path)
    assert (
        "model.json: is not what the factory listed_model:make makes: 0.weight [5, 2], now "
        "1.weight [5, 2]; 0.bias [5], now 1.bias [5]; its source, or what that imports, was "
        "changed since the run was begun (restore it, or train anew)"
    ) in str(caught.value)


@pytest.mark.usefixtures("file")
def test_what_the_run_would_need_has_the_memory_of_the_library(tmp_path: Path) -> None:
    own = trainer(tmp_path, NAMED).plan().memory_per_process_bytes
    layers = {"layers": [{"type": "dense", "units": 1}]}
    plain = trainer(tmp_path, layers).plan().memory_per_process_bytes
    assert own - plain >= LIBRARY_BYTES["torch"]
