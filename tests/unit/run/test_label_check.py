"""Labels outside of what the loss takes: refused at every border, with column, row, value, rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.errors import ConfigError, DataError
from distsgd.lessons.inspect import input_gradients
from distsgd.nn import LOSSES, find_loss
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

RULES = {
    "sigmoid_cross_entropy": "from 0 to 1",
    "cross_entropy": "from 0 to 1",
    "hellinger": "0 or more",
    "kullback_leibler": "0 or more",
    "generalised_kullback_leibler": "0 or more",
    "itakura_saito": "above 0",
}
OUTSIDE = [
    *(
        (loss, value)
        for loss in ("sigmoid_cross_entropy", "cross_entropy")
        for value in (5.0, -1.0)
    ),
    *((loss, -0.5) for loss in RULES),
    ("itakura_saito", 0.0),
    ("sigmoid_cross_entropy", 1.0 + 2.0**-20),
]
INSIDE = [
    *((loss, 0.0 if loss != "itakura_saito" else 1e-30) for loss in RULES),
    *((loss, -7.0) for loss in ("squared_error", "quadratic", "mean_absolute", "huber")),
    ("exponential", -1.0),
]


def config(loss: str, **data: Any) -> TrainConfig:
    layer: dict[str, Any] = {"type": "dense", "units": data.pop("units", 1)}
    if loss != "sigmoid_cross_entropy":
        layer["activation"] = "sigmoid"
    return TrainConfig.from_dict(
        {
            "data": {"label": "y", **data},
            "model": {"layers": [layer], "loss": loss},
            "optimizer": {"learning_rate": 0.01},
            "batch": {"size": 4},
            "train": {"steps": 2},
            "parallel": {"workers": 0},
        }
    )


def columns(values: dict[int, float], rows: int = 20) -> dict[str, Any]:
    """Rows with the label 0.5, but for those given."""
    labels = np.full(rows, 0.5)
    for row, value in values.items():
        labels[row] = value
    return {"a": np.cos(np.arange(rows)), "y": labels}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file of good rows, one with bad rows; both written by `write`."""
    return {name: tmp_path / f"{name}.parquet" for name in ("good", "bad")}


def write(files: dict[str, Path], bad: dict[int, float]) -> None:
    pq.write_table(pa.table(columns({})), files["good"])
    pq.write_table(pa.table(columns(bad)), files["bad"])


def trainer(wanted: TrainConfig, tmp_path: Path, **more: Any) -> Trainer:
    return Trainer(wanted, cache_dir=tmp_path / "cache", run_dir=tmp_path / "run", **more)


WAYS = ("train", "dry_run", "test_path", "test_fraction", "prepared")


@pytest.mark.parametrize(
    ("loss", "value", "way"),
    [
        *((loss, value, "train") for loss, value in OUTSIDE),
        *(("itakura_saito", 0.0, way) for way in WAYS[1:]),
    ],
)
def test_label_outside_the_domain_is_refused_with_its_row(
    loss: str, value: float, way: str, files: dict[str, Path], tmp_path: Path
) -> None:
    write(files, {13: value, 17: value})
    data: dict[str, Any] = {"path": str(files["bad"])}
    if way == "test_path":
        data = {"path": str(files["good"]), "test_path": str(files["bad"])}
    elif way == "test_fraction":
        data["test_fraction"] = 0.5
    elif way == "prepared":  # For another loss, some time ago.
        prepare(files["bad"], tmp_path / "prepared", options=PrepareOptions(label=("y",)))
        data = {"path": str(tmp_path / "prepared")}
    made = trainer(config(loss, **data), tmp_path)
    with pytest.raises(DataError) as caught:
        made.plan() if way == "dry_run" else made.fit()
    assert caught.value.path.endswith("bad.parquet")
    said = caught.value.reason
    assert said.startswith(f"column 'y', row 13: label {np.float32(value):.9g} is outside")
    assert f"loss '{loss}' takes; must be {RULES[loss]} (" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("loss", "value"), INSIDE)
def test_label_inside_the_domain_trains(loss: str, value: float, tmp_path: Path) -> None:
    columns_ = columns({3: value})
    rows = columns_["a"][:, None], columns_["y"]
    result = trainer(config(loss), tmp_path, data=rows).fit()
    assert result.metrics["status"] == "done"


def test_rules_are_those_of_every_loss() -> None:
    assert {name: find_loss(name).target_domain.rule for name in LOSSES} == {
        name: RULES.get(name, "a number") for name in LOSSES
    }


@pytest.mark.parametrize("column", [0, 2])
def test_arrays_are_refused_with_row_and_column(column: int, tmp_path: Path) -> None:
    labels = np.full((20, 3), 0.5)
    labels[7, column] = -1.0
    rows = np.ones((20, 1)), labels
    made = trainer(config("cross_entropy", units=3), tmp_path, data=rows)
    with pytest.raises(
        DataError, match=rf"arrays in memory: column 'y_{column}', row 7: label -1 is outside"
    ):
        made.fit()
    assert not (tmp_path / "run").exists()


def test_integer_and_boolean_labels_are_numbers_of_the_loss(tmp_path: Path) -> None:
    for labels in (np.arange(20) % 2, np.arange(20) % 2 == 0):
        run = tmp_path / str(labels.dtype)
        made = Trainer(
            config("sigmoid_cross_entropy"), data=(np.ones((20, 1)), labels), run_dir=run
        )
        assert made.fit().metrics["status"] == "done"
    made = trainer(
        config("sigmoid_cross_entropy"), tmp_path, data=(np.ones((20, 1)), np.arange(20) % 3)
    )
    with pytest.raises(DataError, match=r"row 2: label 2 is outside"):
        made.fit()


@pytest.mark.parametrize(("loss", "value"), [("sigmoid_cross_entropy", 5.0), *OUTSIDE[-2:-1]])
def test_new_rows_are_refused_at_evaluation(
    loss: str, value: float, files: dict[str, Path], tmp_path: Path
) -> None:
    write(files, {13: value})
    trainer(config(loss, path=str(files["good"])), tmp_path).fit()
    says = rf"bad\.parquet: column 'y', row 13: label .* must be {RULES[loss]}"
    with pytest.raises(DataError, match=says):
        Run.open(tmp_path / "run").evaluate(files["bad"])
    with pytest.raises(DataError, match=says):
        input_gradients(tmp_path / "run", files["bad"], first=0, last=20)
    assert Run.open(tmp_path / "run").evaluate(files["good"]).rows == 20


def test_one_hot_beside_a_loss_without_0_is_refused_before_any_data() -> None:
    with pytest.raises(ConfigError, match=r"one_hot is true .* takes targets above 0"):
        config("itakura_saito", path="rows.parquet", one_hot=True)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"itakura_saito"}))
def test_classes_of_any_name_need_no_domain(loss: str, tmp_path: Path) -> None:
    labels = np.array([5, -1, 7, 5, -1] * 4)
    takes_class = find_loss(loss).target_kind == "class"
    wanted = config(loss, units=3, **({} if takes_class else {"one_hot": True}))
    result = trainer(wanted, tmp_path, data=(np.arange(20.0)[:, None], labels)).fit()
    assert result.metrics["status"] == "done"
