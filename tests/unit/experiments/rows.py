"""A small table that is quickly learnt, and an experiment on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.config import TrainConfig
from distsgd.experiments.findings import LearningCell
from distsgd.experiments.plan import Grid, ScalePlan
from distsgd.experiments.scale import Scale

_OTHER = {"seconds", "configuration"}  # That has the path of the rows in it.
NUM_ROWS, NUM_TEST_ROWS = 240, 60


def write_rows(place: Path) -> Path:
    """300 rows of two numbers, three classes that touch; the file."""
    chance = np.random.default_rng(5)
    digit = np.arange(NUM_ROWS + NUM_TEST_ROWS) % 3
    centre = np.array([[0.0, 2.0], [2.0, 0.0], [-2.0, -1.0]])[digit]
    x = centre + chance.normal(size=centre.shape)
    path = place / "rows.parquet"
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "digit": digit}), path)
    return path


def config_of(rows: Path, **train: Any) -> TrainConfig:
    """A softmax regression on them."""
    return TrainConfig.from_dict(
        {
            "data": {"path": str(rows), "label": "digit", "test_fraction": 0.2},
            "model": {
                "layers": [{"type": "dense", "units": 3}],
                "loss": "softmax_cross_entropy",
            },
            "optimizer": {"learning_rate": 0.1},
            "train": {"epochs": 6} | train,
        }
    )


def plan_of(rows: Path, **changes: Any) -> ScalePlan:
    """Two batch sizes, one core, two rates to choose from."""
    values: dict[str, Any] = {
        "config": config_of(rows),
        "batches": (4, "full"),
        "workers": (0,),
        "target": "test_accuracy>=0.85",
        "rates": (0.01, 1.0),
        "seeds": 2,
        "num_pairs": 5,
    }
    return ScalePlan(**values | changes)


def begun(place: Path, **changes: Any) -> tuple[Path, Grid]:
    """An experiment in a directory, with its grid."""
    plan = plan_of(write_rows(place), **changes)
    Scale(place / "experiment", plan, place / "cache", lambda _: None).begin()
    return place / "experiment", Grid.of(plan, NUM_ROWS)


def but_for_times(cell: LearningCell) -> dict[str, Any]:
    """A learning run without its seconds."""
    names = set(LearningCell.__slots__) - _OTHER
    return {name: getattr(cell, name) for name in names}
