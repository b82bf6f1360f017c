"""Rows of axes: inputs, labels that are lists, and what a built-in network refuses of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from distsgd.config import TrainConfig
from distsgd.data.manifest import Manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import arrays_source
from distsgd.errors import ConfigError, DataError, ModelError
from distsgd.run import evaluation
from distsgd.run.rows import feature_rows, labelled_rows
from distsgd.run.run import Run
from distsgd.run.source import prepare_options
from distsgd.run.trainer import Trainer

CHANCE = np.random.default_rng(3)
IMAGES = CHANCE.standard_normal((40, 16))
KINDS = (IMAGES[:, 5] > 0).astype(int)
CONVOLUTION = [
    {"type": "convolution", "channels": 2, "kernel": 3, "activation": "relu"},
    {"type": "flatten"},
    {"type": "dense", "units": 2},
]
RESHAPE = {"type": "reshape", "shape": [4, 4, 1]}


def config(layers: Any, loss: str = "softmax_cross_entropy", **data: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "data": {"label": "y"} | data,
            "model": {"layers": layers, "loss": loss},
            "batch": {"size": 8},
            "train": {"epochs": 2, "digest_every": 1},
            "parallel": {"workers": 0, "block_rows": 8},
        }
    )


def fitted(path: Path, data: Any, *given: Any, **sections: Any) -> Run:
    return Trainer(config(*given, **sections), data=data, run_dir=path).fit()


def test_input_shape_takes_the_place_of_a_first_reshape_layer(tmp_path: Path) -> None:
    rows, held_out = (IMAGES, KINDS), {"test_fraction": 0.25}
    shaped = fitted(tmp_path / "shaped", rows, CONVOLUTION, input_shape=[4, 4, 1], **held_out)
    reshaped = fitted(tmp_path / "reshaped", rows, [RESHAPE, *CONVOLUTION], **held_out)
    for one, other in zip(shaped.weights.values(), reshaped.weights.values(), strict=True):
        assert np.array_equal(one, other)
    assert shaped.manifest.digest == reshaped.manifest.digest
    opened = Run.open(shaped.path)
    assert opened.model.input_shape == (4, 4, 1)
    assert opened.evaluate() == reshaped.evaluate()
    assert opened.evaluate(rows) == reshaped.evaluate(rows)
    assert np.array_equal(opened.predict_proba(IMAGES), reshaped.predict_proba(IMAGES))
    assert opened.verify().steps == 8


def test_arrays_may_have_the_axes_of_input_shape(tmp_path: Path) -> None:
    images = IMAGES.reshape(40, 4, 4, 1)
    folded = fitted(tmp_path / "folded", (images, KINDS), CONVOLUTION, input_shape=[4, 4, 1])
    flat = fitted(tmp_path / "flat", (IMAGES, KINDS), CONVOLUTION, input_shape=[4, 4, 1])
    assert folded.metrics["weights_digest"] == flat.metrics["weights_digest"]
    assert np.array_equal(folded.predict(images), folded.predict(IMAGES))
    assert folded.evaluate((images, KINDS)) == flat.evaluate((IMAGES, KINDS))
    with pytest.raises(DataError, match=r"x has shape \(40, 1, 16\); must be \[N, I\].*input_sh"):
        folded.predict(IMAGES[:, None])


def test_input_shape_is_no_part_of_how_rows_are_prepared() -> None:
    plain, shaped = config(CONVOLUTION), config(CONVOLUTION, input_shape=[4, 4, 1])
    assert prepare_options(plain) == prepare_options(shaped)


def test_input_shape_of_another_number_of_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fitted(tmp_path / "run", (IMAGES, KINDS), CONVOLUTION, input_shape=[5, 4, 1])
    assert str(caught.value) == (
        "data.input_shape is [5, 4, 1], 20 numbers; the product must be 16, the features of a row "
        "(set [data] input_shape, or choose others)"
    )


def test_a_convolution_of_flat_rows_names_input_shape(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"or set \[data\] input_shape"):
        fitted(tmp_path / "run", (IMAGES, KINDS), CONVOLUTION)


DENSE = [{"type": "dense", "units": 3}]


def test_a_list_of_numbers_is_learnt_and_predicted_as_a_list(tmp_path: Path) -> None:
    y = np.stack([IMAGES[:, 0], IMAGES[:, 1], IMAGES.sum(axis=1)], axis=1)
    lists = fitted(tmp_path / "lists", (IMAGES, y), DENSE, "quadratic", target_shape=[3])
    columns = fitted(tmp_path / "columns", (IMAGES, y), DENSE, "quadratic")
    assert (lists.manifest.labels, lists.manifest.target_shape) == (("y",), (3,))
    assert columns.manifest.labels == ("y_0", "y_1", "y_2")
    assert lists.metrics["weights_digest"] == columns.metrics["weights_digest"]
    assert np.array_equal(lists.predict(IMAGES), columns.predict(IMAGES))
    assert lists.evaluate((IMAGES, y)) == columns.evaluate((IMAGES, y))
    table = pa.table({"x": pa.array(IMAGES.tolist()), "y": pa.array(y.tolist())})
    assert lists.evaluate(table) == columns.evaluate((IMAGES, y))
    pq.write_table(table, tmp_path / "rows.parquet")
    lists.write_predictions(tmp_path / "rows.parquet", tmp_path / "said.parquet")
    said = pq.read_table(tmp_path / "said.parquet")
    assert said.column_names == ["y"]
    assert np.array_equal(np.array(said["y"].to_pylist(), np.float32), lists.predict(IMAGES))
    with pytest.raises(DataError, match="y has 2 labels a row; must have 3, as the rows of tr"):
        lists.evaluate((IMAGES, y[:, :2]))


PLACES = CHANCE.integers(0, 3, (40, 4))


@pytest.mark.parametrize(
    ("y", "loss", "shape", "message"),
    [
        (
            PLACES,
            "softmax_cross_entropy",
            [4],
            r"the shape \[4\], a class at each of 4 places of a row;.* own in \[model\] factory",
        ),
        (
            PLACES.reshape(40, 2, 2),
            "softmax_cross_entropy",
            None,
            r"the shape \[2, 2\], a class at",
        ),
        (
            PLACES / 2,
            "quadratic",
            [2, 2],
            r"the shape \[2, 2\]; .* along one axis \(set \[data\] target_shape = \[4\], or name",
        ),
        (
            PLACES / 2,
            "quadratic",
            [4],
            r"ends in 3 outputs; must be 4, the number of numbers of a ",
        ),
    ],
)
def test_what_a_built_in_network_cannot_learn_is_refused(
    tmp_path: Path, y: Any, loss: str, shape: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(tmp_path / "run", (IMAGES, y), DENSE, loss, target_shape=shape)
    assert not (tmp_path / "run").exists()


def test_several_columns_of_classes_are_refused_without_a_shape(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 label columns .* cannot be one class"):
        fitted(tmp_path / "run", (IMAGES, PLACES), DENSE)


@dataclass
class Echo:
    """A model for tokens: at each place the likeliest class is the token itself, or class 0."""

    num_classes: int
    input_shape: tuple[int, ...]
    target_kind: str = "class"
    has_probabilities: bool = True

    def predict(self, weights_P: Any, x: NDArray[Any]) -> NDArray[Any]:  # noqa: ARG002
        known = np.where(x < self.num_classes, x, 0).astype(int)
        scores: NDArray[Any] = np.eye(self.num_classes, dtype=np.float32)[known]
        return scores

    def program(self, *_sizes: Any, **_options: Any) -> Echo:
        return self

    def bind(self, x: Any, target: Any, *, weights: Any) -> Any:
        found = self.predict(weights, x)
        losses_N = np.zeros(len(target), np.float32)
        return SimpleNamespace(forward=lambda: None, losses_N=losses_N, outputs_NO=found)


@pytest.fixture
def echo(tmp_path: Path) -> Run:
    """What a run of an `Echo` says of itself."""
    options = PrepareOptions(("y",), feature_kind="integer", target_shape=(2, 2))
    source = arrays_source(PLACES, PLACES, label="y", target_shape=(2, 2))
    manifest = prepare(source, tmp_path / "data", options=options)
    found = SimpleNamespace(
        manifest=manifest,
        model=Echo(3, (2, 2)),
        weights_P=np.zeros(1, np.float32),
        config=config(DENSE),
    )
    return cast(Run, found)


def test_predictions_of_classes_have_the_axes_of_the_labels(echo: Run, tmp_path: Path) -> None:
    rows = feature_rows(PLACES, echo.manifest, (2, 2))
    outputs = evaluation.outputs_of(echo, rows)
    assert outputs.shape == (40, 2, 2, 3)
    labels = evaluation.labels_of(echo, outputs)
    assert np.array_equal(labels, PLACES.reshape(40, 2, 2))
    assert evaluation.write_predictions(echo, rows, tmp_path / "said.parquet") == 40
    said = pq.read_table(tmp_path / "said.parquet")
    assert said.column_names == ["prediction", "probability", "outputs"]
    assert said["prediction"].to_pylist() == PLACES.tolist()
    assert said["probability"].to_pylist() == [[1.0] * 4] * 40
    assert said["outputs"].to_pylist()[0] == np.eye(3)[PLACES[0]].tolist()


def test_accuracy_of_new_rows_is_over_all_places(echo: Run) -> None:
    wrong = PLACES.copy()
    wrong[:10, 0] = (wrong[:10, 0] + 1) % 3
    for y in (wrong, wrong.reshape(40, 2, 2)):
        found = evaluation.evaluate_rows(echo, labelled_rows((PLACES, y), echo.manifest, (2, 2)))
        assert (found.test_accuracy, found.rows) == (1 - 10 / 160, 40)
    table = pa.table({"x": pa.array(PLACES.tolist()), "y": pa.array(wrong.tolist())})
    found = evaluation.evaluate_rows(echo, labelled_rows(table, echo.manifest, (2, 2)))
    assert found.test_accuracy == 1 - 10 / 160


def test_new_rows_are_held_to_the_labels_and_levels_of_training(echo: Run) -> None:
    manifest: Manifest = echo.manifest
    with pytest.raises(DataError, match="y has 3 labels a row; must have 4, as the rows of train"):
        labelled_rows((PLACES, PLACES[:, :3]), manifest, (2, 2))
    high = PLACES.copy()
    high[7, 1] = 3
    with pytest.raises(DataError, match=r"column 'x\[1\]', row 7: 3 is unknown; must be at most 2"):
        evaluation.outputs_of(echo, feature_rows(high, manifest, (2, 2)))
    with pytest.raises(DataError, match=r"column 'y\[1\]', row 7: label 3 is none of the classes"):
        list(labelled_rows((PLACES, high), manifest, (2, 2)).pieces(labels="required"))
    assert replace(manifest, labels=("y",)).target_names == ("y[0]", "y[1]", "y[2]", "y[3]")
