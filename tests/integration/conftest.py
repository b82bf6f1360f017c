"""Data sets that many tests train on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.base.random_keys import Purpose, uniform
from distsgd.config import TrainConfig

EXAMPLES = Path(__file__).parents[2] / "distsgd" / "examples"


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def digits() -> TrainConfig:
    return TrainConfig.from_toml(EXAMPLES / "digits.toml")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """100,000 rows of 50 numbers and three classes that a small network can learn."""
    rows, columns = 100_000, 50
    x = uniform(1, Purpose.PROBE, count=rows * columns).reshape(rows, columns) * 2 - 1
    classes = (x[:, :3] + 0.2 * x[:, 3:6]).argmax(axis=1)
    table: dict[str, Any] = {f"x{i}": x[:, i].astype(np.float32) for i in range(columns)}
    path = tmp_path_factory.mktemp("synthetic") / "synthetic.parquet"
    pq.write_table(pa.table({**table, "kind": classes}), path, row_group_size=30_000)
    return TrainConfig.from_dict(
        {
            "data": {"path": str(path), "label": "kind", "test_fraction": 0.1},
            "model": {
                "layers": [
                    {"type": "dense", "units": 32, "activation": "tanh"},
                    {"type": "dense", "units": 3},
                ],
                "loss": "softmax_cross_entropy",
            },
            "optimizer": {"type": "nesterov", "learning_rate": 0.05},
        }
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory with the digits, a HOME of its own, and a short temporary directory."""
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as short:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TMPDIR", short)
        subprocess.run(
            [sys.executable, "-m", "distsgd", "init", "digits"], cwd=tmp_path, check=True
        )
        yield tmp_path
        assert list(Path(short).iterdir()) == []
