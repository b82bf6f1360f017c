"""CSV files and class labels, from the command line to the message that a user sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Command = Callable[..., tuple[int, str, str]]

NUM_ROWS = 60


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def columns() -> dict[str, list[Any]]:
    chance = np.random.default_rng(5)
    y = np.arange(NUM_ROWS) % 3
    x_NI = chance.normal(size=(NUM_ROWS, 2)) + 4.0 * np.eye(3)[y, :2]
    return {"a": x_NI[:, 0].tolist(), "b": x_NI[:, 1].tolist(), "y": y.tolist()}


def write_csv(
    path: str, *, separator: str = ",", decimal: str = ".", encoding: str = "utf-8"
) -> None:
    rows = zip(*columns().values(), strict=True)
    lines = [separator.join(("a", "b", "y"))]
    lines += [separator.join(str(v).replace(".", decimal) for v in row) for row in rows]
    Path(path).write_text("\n".join(lines) + "\n", encoding)


def write_config(
    path: str, *, loss: str = "softmax_cross_entropy", units: int = 3, data: str = ""
) -> None:
    Path("c.toml").write_text(
        f"""[data]
path = "{path}"
label = "y"
{data}
[model]
layers = [{{type = "dense", units = {units}}}]
loss = "{loss}"
[batch]
size = 10
[train]
epochs = 2
[parallel]
workers = 0
"""
    )


def train(command: Command, *words: str) -> tuple[int, str]:
    code, _, err = command("train", "c.toml", "--run-dir", "run", "--quiet", *words)
    return code, err


def evaluated(command: Command, *words: str) -> dict[str, Any]:
    code, out, err = command("evaluate", "run", "--json", *words)
    assert code == 0, err
    return dict(json.loads(out))


def test_text_labels_of_parquet_meet_those_of_csv(command: Command) -> None:
    table = columns()
    pq.write_table(pa.table({**table, "y": list(map(str, table["y"]))}), "d.parquet")
    write_csv("e.csv")
    write_config("d.parquet", data='test_path = "e.csv"')
    assert train(command) == (0, "")
    assert evaluated(command, "--data", "e.csv") == evaluated(command, "--data", "d.parquet")


def test_the_settings_of_a_run_hold_for_its_new_files(command: Command) -> None:
    settings = {"separator": "|", "decimal": ",", "encoding": "utf-16"}
    write_csv("d.csv", **settings)
    keys = "\n".join(f'{key} = "{value}"' for key, value in settings.items())
    write_config("d.csv", data=f'test_path = "e.csv"\n[data.csv]\n{keys}')
    write_csv("e.csv", **settings)
    assert train(command) == (0, "")
    write_csv("f.csv", separator=";", decimal=",", encoding="latin-1")
    other = ["--csv", "separator=auto", "--csv", "encoding=latin-1"]
    assert evaluated(command, "--data", "e.csv") == evaluated(command, "--data", "f.csv", *other)
    assert command("predict", "run", "--data", "e.csv", "--out", "e.parquet")[0] == 0
    assert command("predict", "run", "--data", "f.csv", "--out", "f.parquet", *other)[0] == 0
    assert pq.read_table("e.parquet").equals(pq.read_table("f.parquet"))


def test_settings_can_be_set_on_the_command_line(command: Command) -> None:
    write_csv("d.csv", separator="|")
    write_config("d.csv")
    code, err = train(command)
    assert code == 3
    assert 'set [data.csv] separator = "|"' in err
    assert train(command, "--set", "data.csv.separator=|") == (0, "")
    out = ["--label", "y", "--out", "prepared", "--csv", "separator=|"]
    assert command("data", "prepare", "d.csv", *out)[0] == 0
    assert command("data", "check", "d.csv", "--csv", "separator=|")[0] == 0
    assert command("data", "check", "d.csv")[0] == 3
    code, _, err = command("data", "check", "d.csv", "--csv", "separator=||")
    assert (code, "--csv separator is '||'; must be" in err) == (2, True)


def test_a_bad_cell_is_named_by_check(command: Command) -> None:
    write_csv("d.csv")
    with Path("d.csv").open("a") as file:
        file.write("?,1.0,1\n")
    code, _, err = command("data", "check", "d.csv")
    assert code == 0
    assert "column 'a' is text: row 60: '?' is no number" in " ".join(err.split())


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize(
    ("loss", "more"), [("softmax_cross_entropy", ""), ("squared_error", "one_hot = true")]
)
def test_one_class_only_is_one_refusal_whatever_the_network(
    command: Command, loss: str, more: str, units: int
) -> None:
    pq.write_table(pa.table({**columns(), "y": [5] * NUM_ROWS}), "d.parquet")
    write_config("d.parquet", loss=loss, units=units, data=more)
    code, err = train(command)
    text = " ".join(err.split())
    assert code == 3
    assert "label column 'y' holds one class only (5), in every row; two are needed" in text


def test_quantities_under_a_loss_for_classes_have_a_way_out(command: Command) -> None:
    write_csv("d.csv")
    write_config("d.csv")
    text = Path("c.toml").read_text().replace('label = "y"', 'label = "b"')
    Path("c.toml").write_text(text)
    code, err = train(command)
    assert code == 3
    assert "label kind" not in err
    assert 'set [model] loss = "squared_error"' in " ".join(err.split())
    way_out = [
        "--set",
        "model.loss=squared_error",
        "--set",
        'model.layers=[{type="dense",units=1}]',
    ]
    assert train(command, *way_out) == (0, "")


def test_the_number_of_outputs_is_explained_by_the_classes(command: Command) -> None:
    write_csv("d.csv")
    write_config("d.csv", units=2)
    code, err = train(command)
    assert code == 2
    assert "must be 3, the number of classes (0, 1, 2)" in " ".join(err.split())
