"""A small convolutional network beats the dense one on 10,000 handwritten digits."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd import TrainConfig, Trainer

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist10k"
NUM_TRAIN = 8000
DENSE: list[dict[str, Any]] = [
    {"type": "dense", "units": 128, "activation": "relu"},
    {"type": "dense", "units": 10},
]
CONVOLUTIONAL: list[dict[str, Any]] = [
    {"type": "reshape", "shape": [28, 28, 1]},
    {"type": "convolution", "channels": 8, "kernel": 5, "activation": "relu"},
    {"type": "max_pool", "size": 2},
    {"type": "convolution", "channels": 16, "kernel": 3, "activation": "relu"},
    {"type": "max_pool", "size": 2},
    {"type": "flatten"},
    {"type": "dense", "units": 10},
]

needs_images = pytest.mark.skipif(
    not MNIST.is_dir(), reason="the 10,000 images lie outside the project, and are not here"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 8,000 images and the last 2,000, as two files."""
    with gzip.open(MNIST / "images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(MNIST / "labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    directory = tmp_path_factory.mktemp("images")
    for name, rows in (("train", slice(0, NUM_TRAIN)), ("test", slice(NUM_TRAIN, None))):
        column = pa.FixedSizeListArray.from_arrays(pa.array(pixels[rows].ravel()), 784)
        table = pa.table({"image": column, "digit": labels[rows]})
        pq.write_table(table, directory / f"{name}.parquet")
    return directory


def accuracy(images: Path, run: Path, layers: list[dict[str, Any]]) -> float:
    config = TrainConfig.from_dict(
        {
            "data": {
                "path": str(images / "train.parquet"),
                "test_path": str(images / "test.parquet"),
                "label": "digit",
                "standardise": "min_max",
            },
            "model": {"layers": layers, "loss": "softmax_cross_entropy"},
            "optimizer": {"type": "momentum", "learning_rate": 0.05},
            "schedule": {"type": "cosine"},
            "train": {"epochs": 4},
            "parallel": {"workers": 0},
        }
    )
    return float(Trainer(config, run_dir=run, cache_dir=images).fit().metrics["test_accuracy"])


@needs_images
def test_convolution_beats_the_dense_network_on_held_out_images(
    images: Path, tmp_path: Path
) -> None:
    dense = accuracy(images, tmp_path / "dense", DENSE)
    convolutional = accuracy(images, tmp_path / "convolutional", CONVOLUTIONAL)
    assert dense > 0.9
    assert convolutional > dense
