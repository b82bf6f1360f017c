"""Digits as vectors and back as images: class weights, gradients by the input, dot products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.config import TrainConfig
from distsgd.data.prepare.rows import read_rows
from distsgd.lessons.inspect import input_gradients, layer_weights
from distsgd.run.run import Result, Run
from distsgd.run.trainer import Trainer

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "distsgd" / "examples" / "digits.parquet"
MNIST = ROOT.parent / "shared" / "data" / "mnist10k" / "images-idx3-ubyte.gz"
needs_mnist = pytest.mark.skipif(not MNIST.is_file(), reason=f"needs {MNIST.parent}")


def one_layer(
    data: Path, run: Path, *, label: str, width: int, rate: float, **data_keys: Any
) -> Result:
    """One output a class, quadratic cost, from weights of 0, pixels from 0 to 1."""
    keys = {"path": str(data), "label": label, "one_hot": True, "standardise": "min_max"}
    layer = {"type": "dense", "units": 10, "bias": False}
    config = TrainConfig.from_dict(
        {
            "data": keys | data_keys,
            "model": {"layers": [layer], "loss": "quadratic"},
            "optimizer": {"type": "sgd", "learning_rate": rate},
            "train": {"epochs": 10},
            "parallel": {"workers": 0},
        }
    )
    start = {"layers.0.weight": np.zeros((width, 10), np.float32)}
    cache = run.with_name("cache")
    return Trainer(config, run_dir=run, cache_dir=cache).fit(initial_weights=start)


def scores_by_class(
    weights_KI: NDArray[Any], x_NI: NDArray[Any], labels: tuple[str, ...]
) -> NDArray[Any]:
    """Mean dot product of the rows of each class (down) with the weights of each (across)."""
    classes = np.array(labels, int)
    return np.stack([(x_NI[classes == k] @ weights_KI.T).mean(axis=0) for k in range(10)])


def test_the_weights_of_each_digit_score_their_own_digit_highest(tmp_path: Path) -> None:
    run = one_layer(DIGITS, tmp_path / "run", label="digit", width=64, rate=0.05).path
    found = layer_weights(run)
    assert (found.outputs, found.weights_KI.shape) == (tuple("0123456789"), (10, 64))
    rows = read_rows(DIGITS, 0, 1797, label="digit")
    scores = scores_by_class(found.weights_KI, rows.x_NI / 16, rows.labels)
    assert (scores.argmax(axis=1) == np.arange(10)).all()
    assert (scores.argmax(axis=0) == np.arange(10)).all()


def test_the_gradient_by_the_input_is_the_error_sent_back_through_the_weights(
    tmp_path: Path,
) -> None:
    run = one_layer(DIGITS, tmp_path / "run", label="digit", width=64, rate=0.05).path
    weights_KI = layer_weights(run).weights_KI
    found = input_gradients(run, DIGITS, first=5, last=25)
    raw = read_rows(DIGITS, 5, 25, label="digit")
    assert found.labels == raw.labels
    assert np.allclose(found.x_NI, raw.x_NI, atol=1e-5)
    # Each feature is scaled to 0 to 1 by its own range; a constant one is left at 0.
    every = read_rows(DIGITS, 0, 1797, label="digit").x_NI
    span_I = np.ptp(every, axis=0)
    x_NI = (raw.x_NI - every.min(axis=0)) / np.where(span_I > 0, span_I, 1.0)
    delta_NK = x_NI @ weights_KI.T - np.eye(10)[np.array(raw.labels, int)]
    assert np.allclose(found.gradients_NI, delta_NK @ weights_KI, atol=1e-5)


@needs_mnist
def test_an_image_file_is_a_table_of_vectors_with_labels() -> None:
    rows = read_rows(MNIST, 0, 1000)
    assert (rows.x_NI.shape, rows.shape) == ((1000, 784), "28x28")
    assert rows.labels[:10] == tuple("7210414959")
    assert (rows.x_NI.min(), rows.x_NI.max()) == (0.0, 255.0)


@needs_mnist
@pytest.mark.parametrize("num_rows", [1000, 10_000])
def test_one_layer_learns_the_images_by_a_squared_cost(tmp_path: Path, num_rows: int) -> None:
    data = first_rows(tmp_path, num_rows) if num_rows < 10_000 else MNIST
    keys: dict[str, Any] = {"label": "label", "width": 784, "rate": 0.01, "test_fraction": 0.2}
    run = one_layer(data, tmp_path / "run", **keys).path
    accuracy = Run.open(run).evaluate(cache_dir=tmp_path / "cache").test_accuracy
    assert accuracy is not None
    assert accuracy > {1000: 0.75, 10_000: 0.82}[num_rows]
    rows = read_rows(data, 0, num_rows)
    scores = scores_by_class(layer_weights(run).weights_KI, rows.x_NI / 255, rows.labels)
    assert (scores.argmax(axis=1) == np.arange(10)).all()


def first_rows(folder: Path, num_rows: int) -> Path:
    """The first images and their labels, as IDX files of their own."""
    rows = read_rows(MNIST, 0, num_rows)
    for name, code, numbers in (
        ("images-idx3-ubyte", b"\0\0\x08\x03", rows.x_NI),
        ("labels-idx1-ubyte", b"\0\0\x08\x01", np.array(rows.labels, int)),
    ):
        shape = (num_rows, 28, 28)[: code[3]]
        head = code + np.array(shape, ">u4").tobytes()
        (folder / name).write_bytes(head + numbers.astype(np.uint8).tobytes())
    return folder / "images-idx3-ubyte"
