"""Training on rows, prepared data and first weights on object storage: the bits of a disk."""

from __future__ import annotations

import json
from pathlib import Path
from socket import gethostname
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from distsgd.base.locations import Location
from distsgd.config import TrainConfig
from distsgd.data.node_cache import StoredData
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.errors import ConfigError, DataError, ShardError, StorageError
from distsgd.parallel.launch.actors.processes import ServerActor
from distsgd.parallel.worker import BlockWorker
from distsgd.run.callbacks import Callback
from distsgd.run.run import Run
from distsgd.run.source import manifest_of
from distsgd.run.spec import make_run_spec
from distsgd.run.trainer import Trainer
from tests.storage.conftest import KEY_ID, SECRET
from tests.storage.proxy import FaultProxy

DIGITS = Path(__file__).parents[2] / "distsgd" / "examples" / "digits.parquet"
SPLIT: dict[str, Any] = {"test_fraction": 0.2, "standardise": "mean_std"}


def config(path: object, *, workers: int = 0, steps: int = 20, **data: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "data": {"path": str(path), "label": "digit", **SPLIT, **data},
            "model": {
                "layers": [{"type": "dense", "units": 10}],
                "loss": "softmax_cross_entropy",
            },
            "train": {"steps": steps, "evaluate_every_epochs": 1},
            "parallel": {"workers": workers},
        }
    )


@pytest.fixture
def stored(bucket: Location, tmp_path: Path) -> Location:
    options = PrepareOptions(label=("digit",), shards=3, **SPLIT)
    prepare(DIGITS, bucket / "digits", options=options, cache_dir=tmp_path / "c")
    return bucket / "digits"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    options = PrepareOptions(label=("digit",), shards=3, **SPLIT)
    prepare(DIGITS, tmp_path / "digits", options=options)
    return tmp_path / "digits"


def trained(config: TrainConfig, tmp_path: Path, name: str) -> Run:
    return Trainer(config, run_dir=tmp_path / name, cache_dir=tmp_path / "c").fit()


def same_weights(one: Run, other: Run) -> bool:
    return np.array_equal(one.weights_P, other.weights_P)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_prepared_data_set_at_an_address_gives_the_bits_of_a_disk(
    workers: int, stored: Location, local: Path, tmp_path: Path
) -> None:
    there = trained(config(stored, workers=workers), tmp_path, "there")
    here = trained(config(local), tmp_path, "here")
    assert same_weights(there, here)
    assert there.metrics["test_loss"] == here.metrics["test_loss"]


def test_rows_in_windows_and_a_cache_that_holds_next_to_nothing_give_the_same_bits(
    stored: Location, local: Path, tmp_path: Path
) -> None:
    here = trained(config(local, shuffle="windows", steps=30), tmp_path, "here")
    small = config(stored, shuffle="windows", steps=30, cache_size_gb=1e-9)
    there = trained(small, tmp_path, "there")
    assert same_weights(there, here)
    assert there.config.canonical()["data"] == here.config.canonical()["data"] | {
        "path": str(stored)
    }


def test_what_is_done_with_a_run_takes_addresses(
    stored: Location, bucket: Location, tmp_path: Path
) -> None:
    (bucket / "digits.parquet").write_bytes(DIGITS.read_bytes())
    trained(config(stored), tmp_path, "run")
    said: list[str] = []
    run, cache = Run.open(tmp_path / "run", on_message=said.append), tmp_path / "other"
    assert run.verify(cache_dir=cache).steps == 20
    assert run.evaluate(cache_dir=cache).rows == 359
    address = f"{bucket}/*.parquet"
    found = run.evaluate(address, cache_dir=cache)
    assert found == run.evaluate(DIGITS)
    assert said == [f"fetching {bucket}/digits.parquet: 0.0 of 0.1 MB"]
    assert run.write_predictions(address, tmp_path / "out.parquet", cache_dir=cache) == 1797
    run.write_predictions(DIGITS, tmp_path / "here.parquet")
    assert pq.read_table(tmp_path / "out.parquet") == pq.read_table(tmp_path / "here.parquet")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data"] == str(stored)
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or not {KEY_ID, SECRET} & set(
            file.read_text("latin-1").split('"')
        )


def test_raw_rows_give_the_bits_of_a_disk(bucket: Location, tmp_path: Path) -> None:
    (bucket / "digits.parquet").write_bytes(DIGITS.read_bytes())
    said: list[str] = []
    trainer = Trainer(
        config(bucket / "digits.parquet"),
        run_dir=tmp_path / "there",
        cache_dir=tmp_path / "c",
        callbacks=[Callback(on_message=said.append)],
    )
    assert same_weights(trainer.fit(), trained(config(DIGITS), tmp_path, "here"))
    assert f"fetching {bucket}/digits.parquet: 0.0 of 0.1 MB" in said


def test_first_weights_are_read_from_an_address(
    stored: Location, bucket: Location, tmp_path: Path
) -> None:
    first = trained(config(stored, steps=1), tmp_path, "first").weights
    (bucket / "weights.safetensors").write_bytes(save(first))
    (tmp_path / "weights.safetensors").write_bytes(save(first))
    runs = [
        trained(
            config(stored).with_overrides([f"model.initial_weights={place}/weights.safetensors"]),
            tmp_path,
            name,
        )
        for name, place in (("there", bucket), ("here", tmp_path))
    ]
    assert same_weights(*runs)
    wrong = config(stored).with_overrides([f"model.initial_weights={bucket}/none.safetensors"])
    with pytest.raises(ConfigError, match=f"initial_weights is {bucket}/none.safetensors; must be"):
        trained(wrong, tmp_path, "wrong")


def test_a_prepared_data_set_for_something_else_is_refused(
    stored: Location, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="standardise"):
        trained(config(stored, standardise="none"), tmp_path, "run")
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_has_changed_is_no_longer_that_of_the_run(
    stored: Location, tmp_path: Path
) -> None:
    run = trained(config(stored), tmp_path, "run")
    system, path = (stored / "manifest.json").file_system()
    system.delete_file(path)
    options = PrepareOptions(label=("digit",), split_seed=1, shards=3, **SPLIT)
    prepare(DIGITS, stored, options=options, cache_dir=tmp_path / "c")
    with pytest.raises(DataError, match="is no longer the data that"):
        run.verify(cache_dir=tmp_path / "c")


def test_a_node_without_the_prepared_data_says_what_to_share(local: Path, tmp_path: Path) -> None:
    spec = make_run_spec(config(local), local, manifest_of(local)).worker_spec()
    local.rename(tmp_path / "elsewhere")

    class Anyone(BlockWorker):
        def compute_block(self, *_: Any) -> Any:
            """Never called."""

    with pytest.raises(ShardError, match=r"is not on node .*; .*--out s3://.* all nodes share"):
        Anyone(spec)


def test_a_server_that_does_not_reach_the_storage_names_its_node(
    local: Path, bucket: Location, proxy: FaultProxy
) -> None:
    run_spec = make_run_spec(config(local), local, manifest_of(local))
    worker, spec = str(run_spec.worker), run_spec.server_spec(bucket / "run", None)
    server = ServerActor(spec, worker, 0, head="127.0.0.1:6379")
    proxy.refusals = 1000
    with pytest.raises(StorageError, match=rf"s3://.*\(on node {gethostname()}; its keys"):
        server.train()


def test_a_cache_that_is_too_small_for_the_rows_in_use_is_warned_of(stored: Location) -> None:
    small = config(stored, cache_size_gb=0.0001)
    spec = make_run_spec(small, StoredData(stored), manifest_of(StoredData(stored)))
    [warning] = [it for it in spec.warnings() if "cache_size_gb" in it]
    assert "fetched again and again" in warning
    spec = make_run_spec(config(stored), StoredData(stored), spec.manifest)
    assert not [it for it in spec.warnings() if "cache_size_gb" in it]


def test_a_configuration_names_its_wrong_addresses_and_hides_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        config("s33://bucket/rows", test_path=f"s3://{KEY_ID}:{SECRET}@bucket/a", split_seed=-1)
    said = str(caught.value)
    assert "data.path: an address is 's33://bucket/rows'; must be" in said
    assert "data.test_path: an address is 's3://...@bucket/a'; must be without keys" in said
    assert "data.split_seed is -1" in said
    assert SECRET not in said


def test_file_addresses_are_paths(tmp_path: Path) -> None:
    assert config(f"file://{tmp_path}/a%20b.csv").data.path == f"{tmp_path}/a b.csv"


def test_a_cache_at_an_address_is_filled_once_for_all_nodes(
    bucket: Location, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, runs = bucket / "cache", []
    for node in ("a", "b"):  # Each with a cache of its own.
        monkeypatch.setenv("HOME", str(tmp_path / node))
        made = Trainer(config(DIGITS), run_dir=tmp_path / f"run-{node}", cache_dir=str(cache))
        runs.append(made.fit())
    assert same_weights(*runs)
    assert same_weights(runs[0], trained(config(DIGITS), tmp_path, "here"))
    [place] = {
        it.location.address.rpartition("/")[0]
        for it in cache.files()
        if it.location.name == "manifest.json"
    }
    recorded = [json.loads((run.path / "environment.json").read_text())["data"] for run in runs]
    assert recorded == [place, place]
    assert runs[0].verify(cache_dir=str(cache)).steps == 20
    uploads = [line for line in proxy.requests if line.startswith("PUT") and ".arrow " in line]
    assert len(uploads) == 2  # A small file is one request.
    (cache / place.rpartition("/")[2] / "manifest.json").write_bytes(b"{}")
    trainer = Trainer(config(DIGITS), run_dir=tmp_path / "c", cache_dir=str(cache))
    with pytest.raises(ShardError, match=r"manifest\.json: format is None; must be"):
        trainer.fit()


def test_storage_that_refuses_leaves_no_run(
    bucket: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        trained(config(bucket / "none.parquet"), tmp_path, "run")
    proxy.refusals = 1000
    with pytest.raises(StorageError, match="503") as caught:
        trained(config(bucket / "none.parquet"), tmp_path, "run")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run").exists()
