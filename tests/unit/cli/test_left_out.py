"""What is no feature is said to whoever trains on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Command = Callable[..., tuple[int, str, str]]

CONFIG = """
[data]
path = "rows.parquet"
label = "y"
test_fraction = 0.25
[model]
layers = [{type = "dense", units = 2}]
loss = "softmax_cross_entropy"
[batch]
size = 8
[train]
epochs = 1
[parallel]
workers = 0
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = np.arange(40)
    table = pa.table({"a": rows % 2 + 0.5, "y": rows % 2, "id": rows, "note": ["x"] * 40})
    table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": ["id"]})})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "c.toml").write_text(CONFIG)


@pytest.mark.parametrize("words", [("--dry-run",), ("--run-dir", "run")])
def test_an_index_that_is_left_out_is_said(
    command: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    code, _, said = command("train", "c.toml", '--set=data.exclude=["note"]', *words)
    assert code == 0, said
    assert "column 'id' left out of the features: the index of a data frame" in said.replace(
        "\n", " "
    )
    if "run" in words:
        record = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())
        assert (record["columns"], record["left_out"]) == (["a"], ["id"])
        assert command("verify", "run")[0] == 0
        code, _, said = command(
            "predict", "run", "--data", "rows.parquet", "--out", "predictions.parquet"
        )
        assert code == 0, said


@pytest.mark.parametrize("chosen", ['data.exclude=["note","id"]', 'data.features=["a*"]'])
def test_what_the_user_left_out_needs_no_word(command: Command, chosen: str) -> None:
    code, _, said = command("train", "c.toml", f"--set={chosen}", "--run-dir", "run")
    assert code == 0, said
    assert "left out" not in said


def test_a_wrong_column_is_answered_with_a_near_one(command: Command) -> None:
    code, _, said = command("train", "c.toml", '--set=data.exclude=["notes"]')
    assert code == 3
    assert "(did you mean 'note'?)" in said.replace("\n", " ")


def test_prepare_and_check_say_it_too(command: Command) -> None:
    code, out, said = command(
        "data", "prepare", "rows.parquet", "--label=y", "--exclude=no*", "--out=made"
    )
    assert code == 0, said
    assert "id (index of a data frame)" in " ".join((out + said).split())
    code, out, said = command("data", "check", "rows.parquet")
    assert code == 0, said
    assert "index" in out
