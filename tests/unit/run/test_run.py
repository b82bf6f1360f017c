"""A run that is opened again: what it says of rows, of itself, and of its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import DataError, ModelError, RunError
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

CHANCE = np.random.default_rng(5)
X = CHANCE.standard_normal((60, 3)) * [1.0, 10.0, 100.0] + [0.0, 5.0, -7.0]
KINDS = np.array(["ash", "oak", "yew"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 5)]
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "kind": KINDS})


def config(loss: str = "softmax_cross_entropy", *, units: int = 3, **data: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "data": {"label": "kind", "standardise": "mean_std", "test_fraction": 0.2} | data,
            "model": {"layers": [{"type": "dense", "units": units}], "loss": loss},
            "batch": {"size": 8},
            "train": {"epochs": 20, "digest_every": 4},
            "parallel": {"workers": 0, "block_rows": 7},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("trees") / "run"
    Trainer(config(), data=TABLE, run_dir=path).fit()
    return Run.open(path)


def test_what_fit_returns_is_the_run_that_open_reads_back(tmp_path: Path) -> None:
    result = Trainer(config(), data=TABLE, run_dir=tmp_path / "run").fit()
    opened = Run.open(tmp_path / "run")
    assert isinstance(result, Run)
    assert (opened.path, opened.metrics, opened.config) == (
        result.path,
        result.metrics,
        result.config,
    )
    assert opened.history.equals(result.history)
    assert opened.weights.keys() == result.weights.keys()
    for name, array in result.weights.items():
        assert np.array_equal(opened.weights[name], array)
    assert repr(opened) == repr(result)


def test_weights_are_named_in_the_order_of_the_model(tmp_path: Path) -> None:
    layers = [{"type": "dense", "units": 2}, {"type": "dense", "units": 3}]
    of_two = TrainConfig.from_dict(
        config().to_dict() | {"model": {"layers": layers, "loss": "softmax_cross_entropy"}}
    )
    result = Trainer(of_two, data=TABLE, run_dir=tmp_path / "run").fit()
    names = [spec.name for spec in result.model.parameters]
    assert list(result.weights) == names
    backwards = dict(reversed(list(result.checkpoint.arrays["weights"].items())))
    group = result.checkpoint.arrays
    assert isinstance(group, dict)
    group["weights"] = backwards  # The reader of a file promises no order.
    assert list(result.weights) == names


def test_arrays_tables_and_files_get_the_same_predictions(run: Run, tmp_path: Path) -> None:
    of_arrays = run.predict(X)
    assert of_arrays.tolist() == run.predict(TABLE).tolist()
    assert of_arrays.tolist() == run.predict(TABLE.select(["c", "b", "a"])).tolist()
    assert of_arrays.tolist() == run.predict(X.tolist()).tolist()
    assert set(of_arrays) <= {"ash", "oak", "yew"}
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    assert run.write_predictions(tmp_path / "rows.parquet", tmp_path / "said.parquet") == 60
    said = pq.read_table(tmp_path / "said.parquet")
    assert said["prediction"].to_pylist() == of_arrays.tolist()
    assert said["outputs"].to_pylist() == run.predict_proba(X).tolist()


def test_predictions_are_those_of_the_standardised_rows(run: Run) -> None:
    manifest = run.manifest
    x_NI = ((X - manifest.shift) / manifest.scale).astype(np.float32)
    scores_NC = x_NI @ run.weights["layers.0.weight"] + run.weights["layers.0.bias"]
    assert run.predict(X).tolist() == np.array(manifest.class_names)[scores_NC.argmax(1)].tolist()
    powers_NC = np.exp(scores_NC - scores_NC.max(1, keepdims=True))
    expected = powers_NC / powers_NC.sum(1, keepdims=True)
    assert run.predict_proba(X) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_probabilities_sum_to_one(run: Run) -> None:
    probabilities_NC = run.predict_proba(X)
    assert probabilities_NC.shape == (60, 3)
    assert probabilities_NC.dtype == np.float32
    assert probabilities_NC.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-6)


def test_one_row_is_predicted(run: Run) -> None:
    assert run.predict(X[:1]).tolist() == run.predict(X)[:1].tolist()


def test_evaluation_is_that_of_training_and_of_the_same_rows(run: Run, tmp_path: Path) -> None:
    held_out = run.evaluate()
    assert held_out.test_loss == run.metrics["test_loss"]
    assert held_out.test_accuracy == run.metrics["test_accuracy"]
    assert held_out.rows == run.manifest.test_rows
    of_arrays = run.evaluate((X, KINDS))
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    assert of_arrays == run.evaluate(TABLE) == run.evaluate(tmp_path / "rows.parquet")
    assert of_arrays.test_accuracy == np.mean(run.predict(X) == KINDS)
    assert of_arrays.test_loss == pytest.approx(
        -np.log(run.predict_proba(X)[np.arange(60), np.searchsorted(["ash", "oak", "yew"], KINDS)])
        .astype(np.float64)
        .mean(),
        rel=1e-5,
    )


def test_verify_holds(run: Run) -> None:
    said: list[str] = []
    held = run.verify(on_message=said.append)
    assert held.steps == run.metrics["steps"]
    assert said == [f"making {held.steps} steps again"]


@pytest.mark.parametrize("columns", [1, 2])
def test_numbers_are_predicted_as_their_columns(columns: int, tmp_path: Path) -> None:
    y_NK = X[:, :columns] * 0.1
    wanted = config("squared_error", units=columns, label=["u", "v"][:columns])
    result = Trainer(wanted, data=(X, y_NK), run_dir=tmp_path / "run").fit()
    assert result.predict(X).shape == ((60,) if columns == 1 else (60, 2))
    assert result.evaluate((X, y_NK)).test_accuracy is None
    with pytest.raises(ModelError, match=r"'squared_error' gives scores.*use predict\(\)"):
        result.predict_proba(X)


def test_labels_keep_their_type(tmp_path: Path) -> None:
    for number, labels in enumerate((X[:, 0] > 0, (X[:, 0] > 0) * 7)):
        wanted = config(units=2)
        result = Trainer(wanted, data=(X, labels), run_dir=tmp_path / str(number)).fit()
        assert result.predict(X).dtype == labels.dtype


WRONG: dict[str, tuple[Any, str]] = {
    "one row without an axis": (X[0], r"x has shape \(3,\); must be \[N, I\]"),
    "no rows": (X[:0], r"x has shape \(0, 3\); there must be one row"),
    "other features": (X[:, :2], r"has 2 features; must have 3.*\(a, b, c\)"),
    "a column is missing": (TABLE.drop_columns("b"), "'b'"),
    "text": (X.astype(str), "x holds <U"),
    "not a number": (np.where(X[4, 1] == X, np.nan, X), r"row 4"),
    "a file": ("rows.parquet", r"write_predictions\(file, out\)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_rows_that_cannot_be_predicted_are_refused(run: Run, kind: str) -> None:
    rows, says = WRONG[kind]
    with pytest.raises(DataError, match=says):
        run.predict(rows)


def test_labels_that_cannot_be_evaluated_are_refused(run: Run) -> None:
    with pytest.raises(DataError, match="fir"):
        run.evaluate((X, np.where(KINDS == "ash", "fir", KINDS)))
    with pytest.raises(DataError, match=r"y has 2 labels a row; must have 1"):
        run.evaluate((X, np.stack([KINDS, KINDS], axis=1)))
    with pytest.raises(DataError, match=r"x has 60 rows and y has 59"):
        run.evaluate((X, KINDS[:-1]))


def test_run_without_held_out_rows_asks_for_some(tmp_path: Path) -> None:
    result = Trainer(config(test_fraction=0.0), data=TABLE, run_dir=tmp_path / "run").fit()
    with pytest.raises(RunError, match="held no rows out"):
        result.evaluate()


def test_place_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no directory"):
        Run.open(tmp_path / "nowhere")


def test_damaged_run_is_shown_by_what_can_be_read(tmp_path: Path) -> None:
    Trainer(config(), data=TABLE, run_dir=tmp_path / "run").fit()
    (tmp_path / "run" / "result.json").write_text("{")
    assert repr(Run.open(tmp_path / "run")) == f"Run(path={str(tmp_path / 'run')!r})"
