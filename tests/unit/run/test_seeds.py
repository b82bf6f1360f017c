"""What the seed of training decides, and what it does not: the data, their split, their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.data.cache_entries import Cleared, clear
from distsgd.data.dataset import DataSet
from distsgd.run.callbacks import Callback
from distsgd.run.run import Result, Run
from distsgd.run.trainer import Trainer


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Sixty rows of three classes, a fifth held out."""
    chance = np.random.default_rng(0)
    columns = {"a": chance.normal(size=60), "b": chance.normal(size=60), "y": np.arange(60) % 3}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    return TrainConfig.from_dict(
        {
            "data": {
                "path": str(tmp_path / "rows.parquet"),
                "label": "y",
                "test_fraction": 0.2,
                "shards": 2,
            },
            "model": {
                "layers": [{"type": "dense", "units": 3}],
                "loss": "softmax_cross_entropy",
            },
            "batch": {"size": 7},
            "train": {"steps": 20, "digest_every": 5},
            "parallel": {"workers": 0},
        }
    )


def train(config: TrainConfig, place: Path, name: str, *overrides: str) -> Result:
    changed = config.with_overrides(overrides) if overrides else config
    return Trainer(changed, run_dir=place / name, cache_dir=place / "cache").fit()


def entries(place: Path) -> list[Path]:
    return [entry for entry in (place / "cache").iterdir() if entry.is_dir()]


def test_seeds_of_a_sweep_share_one_entry_and_its_test_rows(
    config: TrainConfig, tmp_path: Path
) -> None:
    first = train(config, tmp_path, "first", "train.seed=0")
    other = train(config, tmp_path, "other", "train.seed=1")
    assert len(entries(tmp_path)) == 1
    assert Run.open(first.path).manifest == Run.open(other.path).manifest
    assert first.metrics["weights_digest"] != other.metrics["weights_digest"]


def test_split_seed_chooses_other_test_rows(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path, "first")
    train(config, tmp_path, "other", "data.split_seed=1")
    opened = [DataSet.open(entry) for entry in entries(tmp_path)]
    rows = {tuple(data.test.source_rows(np.arange(data.test.num_rows))) for data in opened}
    assert [len(chosen) for chosen in rows] == [12, 12]


def test_the_cached_data_of_a_run_are_in_use_until_it_has_ended(
    config: TrainConfig, tmp_path: Path
) -> None:
    seen: list[Cleared] = []

    def clear_now(_: object) -> None:
        seen.append(clear(tmp_path / "cache", on_message=lambda _: None))

    trainer = Trainer(
        config,
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        callbacks=[Callback(on_message=clear_now, on_step=clear_now)],
    )
    trainer.fit()
    assert len(seen) >= 20
    assert not any(cleared.removed for cleared in seen)
    assert seen[-1].in_use == tuple(entry.name for entry in entries(tmp_path))
    assert clear(tmp_path / "cache", on_message=lambda _: None).removed == seen[-1].in_use


@pytest.mark.parametrize("is_cached", [True, False])
def test_runs_find_their_data_again(
    config: TrainConfig, tmp_path: Path, *, is_cached: bool
) -> None:
    result = train(config, tmp_path, "run", "data.stratify=true", "train.seed=5")
    cache = tmp_path / ("cache" if is_cached else "elsewhere")
    run = Run.open(result.path)
    assert run.verify(cache_dir=cache).digests == 4
    assert run.evaluate(cache_dir=cache).test_loss == result.metrics["test_loss"]
    again = Trainer(run.config, run_dir=result.path, cache_dir=cache)
    resumed = again.fit(resume="auto")
    assert resumed.metrics == result.metrics
