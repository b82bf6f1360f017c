"""Predictions: what their columns are called, and that the names are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.nn import LOSSES, find_loss
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

CHANCE = np.random.default_rng(0)
X = CHANCE.standard_normal((60, 3)) * 5
CLASSES = np.array(["a", "b", "c"])[CHANCE.integers(0, 3, 60)]


def predictions(
    tmp_path: Path, labels: Any, loss: str, *, activation: str | None, units: int, one_hot: bool
) -> Any:
    layer: dict[str, Any] = {"type": "dense", "units": units}
    config = TrainConfig.from_dict(
        {
            "data": {"label": "y", "one_hot": one_hot},
            "model": {
                "layers": [layer | ({"activation": activation} if activation else {})],
                "loss": loss,
            },
            "optimizer": {"learning_rate": 0.02},
            "batch": {"size": 10},
            "train": {"epochs": 5},
            "parallel": {"workers": 0},
        }
    )
    Trainer(config, data=(X, labels), run_dir=tmp_path / "run").fit()
    rows = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 3)})
    pq.write_table(rows, tmp_path / "rows.parquet")
    run = Run.open(tmp_path / "run")
    run.write_predictions(tmp_path / "rows.parquet", tmp_path / "said.parquet")
    return pq.read_table(tmp_path / "said.parquet")


CASES: list[tuple[str, str | None, bool]] = [
    ("softmax_cross_entropy", None, True),
    ("sigmoid_cross_entropy", None, True),
    ("cross_entropy", "softmax", True),
    ("cross_entropy", "sigmoid", True),
    ("kullback_leibler", "softmax", True),
    ("kullback_leibler", "relu", False),
    ("hinge", None, False),
    ("squared_error", None, False),
    ("quadratic", "softmax", False),
    ("huber", None, False),
    ("mean_absolute", None, False),
    ("exponential", "tanh", False),
    ("hellinger", "sigmoid", False),
    ("generalised_kullback_leibler", "softmax", False),
]


def test_every_loss_on_classes_is_a_case() -> None:
    assert {loss for loss, _, _ in CASES} | {"itakura_saito"} == set(LOSSES)


@pytest.mark.parametrize(("loss", "activation", "is_probability"), CASES)
def test_only_losses_of_probabilities_write_them(
    loss: str, activation: str | None, *, is_probability: bool, tmp_path: Path
) -> None:
    one_hot = find_loss(loss).target_kind == "number"
    table = predictions(tmp_path, CLASSES, loss, activation=activation, units=3, one_hot=one_hot)
    name = "probability" if is_probability else "score"
    assert table.column_names == ["prediction", name, "outputs"]
    best, outputs = table[name].to_numpy(), np.array(table["outputs"].to_pylist(), np.float32)
    assert best.tolist() == outputs.max(1).tolist()
    if is_probability:
        assert 0.0 <= outputs.min() <= outputs.max() <= 1.0


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "squared_error"])
def test_numbers_are_called_as_their_columns(loss: str, tmp_path: Path) -> None:
    labels = CHANCE.random((60, 2))
    table = predictions(tmp_path, labels, loss, activation=None, units=2, one_hot=False)
    assert table.column_names == ["y_0", "y_1"]
    if loss == "sigmoid_cross_entropy":
        numbers = np.stack([table[name].to_numpy() for name in table.column_names])
        assert 0.0 <= numbers.min() <= numbers.max() <= 1.0


def test_one_unit_of_a_sigmoid_is_the_probability_of_its_column(tmp_path: Path) -> None:
    labels = (CLASSES == "a").astype(np.int64)
    table = predictions(
        tmp_path, labels, "sigmoid_cross_entropy", activation=None, units=1, one_hot=False
    )
    assert table.column_names == ["y"]
    assert 0.0 <= table["y"].to_numpy().min() <= table["y"].to_numpy().max() <= 1.0
