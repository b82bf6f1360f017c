"""Object storage that refuses, is slow, or is cut off: whole files, or errors that say which."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from distsgd.base.locations import Location
from distsgd.data.cache_directory import Cache
from distsgd.data.dataset import DataSet
from distsgd.data.fetch import fetched
from distsgd.data.node_cache import StoredData
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import arrays_source
from distsgd.errors import DistSGDError, StorageError
from tests.storage.proxy import FaultProxy

CONTENT = np.random.default_rng(0).bytes(3 << 20)


@pytest.fixture
def file(bucket: Location) -> Location:
    (bucket / "rows.bin").write_bytes(CONTENT)
    return bucket / "rows.bin"


def copies(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in directory.rglob("rows.bin")]


def fetch(file: Location, directory: Path) -> None:
    fetched(str(file), Cache(directory))


def test_a_fetch_that_is_cut_once_is_whole(
    file: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.cuts, proxy.cut_after = 1, 40_000
    fetch(file, tmp_path)
    assert copies(tmp_path) == [CONTENT]


def test_a_fetch_that_is_refused_once_is_whole(
    file: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.refusals = 1
    fetch(file, tmp_path)
    assert copies(tmp_path) == [CONTENT]


def test_a_slow_fetch_is_whole_and_says_how_far_it_is(
    file: Location, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distsgd.data.fetch.SAY_EVERY_S", 0.0)
    proxy.delay_s, said = 0.005, list[str]()
    fetched(str(file), Cache(tmp_path, on_message=said.append))
    assert copies(tmp_path) == [CONTENT]
    assert said == [f"fetching {file}: {done} of 3.1 MB" for done in ("0.0", "3.1")]


@pytest.mark.parametrize("fault", ["cuts", "refusals", "gone"])
def test_a_fetch_that_fails_leaves_nothing_and_names_its_address(
    fault: str, file: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    if fault == "gone":
        proxy.close()
    else:
        proxy.cut_after = 0
        setattr(proxy, fault, 1000)
    started_s = time.monotonic()
    with pytest.raises(DistSGDError) as caught:
        fetch(file, tmp_path)
    assert time.monotonic() - started_s < 10.0
    assert isinstance(caught.value, StorageError)
    assert caught.value.address == str(file)
    assert caught.value.exit_code == 4
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".lock"]


def test_a_shard_that_cannot_be_fetched_is_there_when_the_storage_is(
    bucket: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    source = arrays_source(np.eye(6), np.array([0, 1] * 3))
    options = PrepareOptions(label=("label",))
    prepare(source, bucket / "set", options=options, cache_dir=tmp_path / "c")
    data = DataSet.open(StoredData(bucket / "set", tmp_path / "c"))
    x_NI, target = np.empty((6, 6), np.float32), np.empty(6, np.int64)
    proxy.refusals = 1000
    with pytest.raises(StorageError, match=r"train-00000\.arrow"):
        data.train.gather_inplace(np.arange(6), x_NI=x_NI, target=target, squared_norms_N=None)
    proxy.refusals = 0
    data.train.gather_inplace(np.arange(6), x_NI=x_NI, target=target, squared_norms_N=None)
    assert sorted(x_NI.argmax(axis=1)) == list(range(6))
