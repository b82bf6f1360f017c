"""A prepared data set on object storage: opened by its address, one cache a node."""

from __future__ import annotations

import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from distsgd.base.locations import Location
from distsgd.data.cache_directory import Cache, DirectoryLock
from distsgd.data.cache_entries import list_entries
from distsgd.data.check import check
from distsgd.data.dataset import DataSet
from distsgd.data.manifest import Manifest
from distsgd.data.node_cache import StoredData
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import MemorySource, arrays_source
from distsgd.errors import DataError, ShardError, StorageError
from tests.storage.proxy import FaultProxy

NUM_SHARDS, NUM_ROWS = 4, 400
OPTIONS = PrepareOptions(label=("label",), shards=NUM_SHARDS, test_fraction=0.25)


def rows() -> MemorySource:
    chance = np.random.default_rng(0)
    return arrays_source(chance.normal(size=(NUM_ROWS, 3)), chance.integers(0, 2, NUM_ROWS))


@pytest.fixture
def stored(bucket: Location, tmp_path: Path) -> Location:
    prepare(rows(), bucket / "set", options=OPTIONS, cache_dir=tmp_path / "upload")
    return bucket / "set"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    prepare(rows(), tmp_path / "local", options=OPTIONS)
    return tmp_path / "local"


def features(data: DataSet, numbers: np.ndarray) -> np.ndarray:
    x_NI = np.empty((len(numbers), 3), np.float32)
    target = np.empty(len(numbers), np.int64)
    data.train.gather_inplace(numbers, x_NI=x_NI, target=target, squared_norms_N=None)
    return x_NI


def first_rows(manifest: Manifest) -> list[int]:
    """The first row of each shard of the training rows."""
    counts = [entry.num_rows for entry in manifest.train_shards]
    return [sum(counts[:i]) for i in range(len(counts))]


def shard_fetches(proxy: FaultProxy) -> int:
    return sum(line.startswith("GET ") and ".arrow " in line for line in proxy.requests)


def test_prepare_to_an_address_leaves_what_a_disk_has(stored: Location, local: Path) -> None:
    names = {it.location.name: it.location.read_bytes() for it in stored.files()}
    assert names == {file.name: file.read_bytes() for file in local.iterdir()}


def test_nothing_of_an_upload_stays_in_the_cache(stored: Location, tmp_path: Path) -> None:
    assert stored.files()
    assert not list((tmp_path / "upload").iterdir())


def test_rows_have_the_bits_of_a_disk_and_shards_come_when_they_are_needed(
    stored: Location, local: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    data, here = DataSet.open(StoredData(stored, tmp_path / "c")), DataSet.open(local)
    assert data.manifest == here.manifest
    assert shard_fetches(proxy) == 0
    for i, row in enumerate(first_rows(data.manifest)):
        numbers = np.array([row, row + 1])
        assert np.array_equal(features(data, numbers), features(here, numbers))
        assert shard_fetches(proxy) == i + 1
    every = np.arange(data.train.num_rows)
    assert np.array_equal(features(data, every), features(here, every))
    assert np.array_equal(data.train.source_rows(every), here.train.source_rows(every))
    assert shard_fetches(proxy) == NUM_SHARDS, "held-out rows were not asked for"
    there, expected = (
        np.concatenate([labels for labels, _ in it.test.targets()]) for it in (data, here)
    )
    assert np.array_equal(there, expected)


def test_a_hint_fetches_ahead_and_returns_at_once(
    stored: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    data = DataSet.open(StoredData(stored, tmp_path / "c"))
    data.train.will_need(range(3))
    deadline = time.monotonic() + 10.0
    while not [it for it in list_entries(tmp_path / "c") if it.fetched]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    features(data, np.array([0]))
    data.train.will_need(range(3))  # It is mapped by now.
    assert shard_fetches(proxy) == 1


def _read_all(address: str, cache_dir: Path) -> None:
    data = DataSet.open(StoredData(Location(address), cache_dir))
    features(data, np.arange(data.train.num_rows))


def test_two_processes_fetch_a_shard_once(
    stored: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.delay_s = 0.05
    context = get_context("spawn")
    processes = [
        context.Process(target=_read_all, args=(str(stored), tmp_path / "c")) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert shard_fetches(proxy) == NUM_SHARDS


def test_the_cache_keeps_its_bound_and_what_is_mapped(
    stored: Location, local: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    cache_dir, here = tmp_path / "c", DataSet.open(local)
    largest = max(entry.num_bytes for entry in here.manifest.train_shards)
    data = DataSet.open(StoredData(stored, cache_dir, int(largest * 2.9)))
    firsts = first_rows(data.manifest)
    for row in firsts:
        numbers = np.array([row])
        assert np.array_equal(features(data, numbers), features(here, numbers))
        assert sum(it.num_bytes for it in list_entries(cache_dir)) <= largest * 2.9
    features(data, np.array([firsts[-1]]))
    assert shard_fetches(proxy) == NUM_SHARDS, "the one used last is still there"
    used = [it.fetched for it in list_entries(cache_dir)]
    other = DataSet.open(StoredData(stored, cache_dir, 1))
    assert np.array_equal(features(other, np.array([0])), features(here, np.array([0])))
    assert set(used) < {it.fetched for it in list_entries(cache_dir)}, "mapped by the first"
    assert shard_fetches(proxy) == NUM_SHARDS + 1


def test_shards_that_were_let_go_of_come_back(
    stored: Location, local: Path, tmp_path: Path
) -> None:
    data, here = DataSet.open(StoredData(stored, tmp_path / "c", 1)), DataSet.open(local)
    every = np.arange(here.train.num_rows)
    for _ in range(2):
        assert np.array_equal(features(data, every), features(here, every))
    assert len(list_entries(tmp_path / "c")) == 1


def test_a_damaged_copy_is_fetched_again(
    stored: Location, local: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    here, numbers = DataSet.open(local), np.array([0])
    place = StoredData(stored, tmp_path / "c")
    expected = features(here, numbers)
    assert np.array_equal(features(DataSet.open(place), numbers), expected)
    [copy] = (tmp_path / "c").glob("*/*.arrow")
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    assert np.array_equal(features(DataSet.open(place), numbers), expected)
    assert shard_fetches(proxy) == 2


def test_a_shard_that_is_damaged_or_missing_there_is_named(
    stored: Location, tmp_path: Path
) -> None:
    entry = DataSet.open(StoredData(stored, tmp_path)).manifest.train_shards[0]
    shard, place = stored / entry.file, StoredData(stored, tmp_path / "c")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    for damaged, said in ((bytes(content), "checksum"), (content[:-1], "has .* bytes; must have")):
        shard.write_bytes(bytes(damaged))
        with pytest.raises(ShardError, match=said) as caught:
            features(DataSet.open(place), np.array([0]))
        assert caught.value.path == str(shard)
    system, path = shard.file_system()
    system.delete_file(path)
    with pytest.raises(ShardError, match="is missing"):
        features(DataSet.open(place), np.array([0]))
    assert not list((tmp_path / "c").glob("*/"))


def test_a_manifest_that_was_changed_is_refused(stored: Location) -> None:
    manifest = stored / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"split_seed": 0', b'"split_seed": 1'))
    with pytest.raises(ShardError, match="does not have the digest it claims") as caught:
        DataSet.open(str(stored))
    assert caught.value.path == str(manifest)
    with pytest.raises(ShardError, match="is no prepared data set"):
        DataSet.open(f"{stored}/none")


def test_check_reads_all_of_it(stored: Location, tmp_path: Path) -> None:
    report = check(str(stored), cache=Cache(tmp_path / "c"))
    assert report.is_prepared
    assert (report.num_rows, report.problems) == (NUM_ROWS, ())


def test_prepare_refuses_an_address_that_is_taken(stored: Location, bucket: Location) -> None:
    with pytest.raises(DataError, match="holds a prepared data set already"):
        prepare(rows(), str(stored), options=OPTIONS)
    with pytest.raises(DataError, match=r"is not empty \(it holds set/"):
        prepare(rows(), bucket, options=OPTIONS)
    with pytest.raises(DataError, match="is a file"):
        prepare(rows(), stored / "manifest.json", options=OPTIONS)


def test_an_upload_that_fails_leaves_no_data_set_and_can_be_done_again(
    bucket: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    out = bucket / "set"

    class FailsLate(MemorySource):
        """Rows after whose last reading the storage refuses everything."""

        def check_unchanged(self) -> None:
            proxy.refusals = 1000

    whole = rows()
    source = FailsLate(whole._table)
    with pytest.raises(StorageError, match=r"set/test-00000\.arrow: writing: "):
        prepare(source, out, options=OPTIONS, cache_dir=tmp_path / "c")
    proxy.refusals = 0
    assert not list((tmp_path / "c").iterdir())
    with pytest.raises(ShardError, match="is no prepared data set"):
        DataSet.open(out)
    prepare(whole, out, options=OPTIONS, cache_dir=tmp_path / "c")
    assert DataSet.open(out).train.num_rows == 300


def test_a_lock_keeps_an_entry_while_its_holder_lives(stored: Location, tmp_path: Path) -> None:
    data = DataSet.open(StoredData(stored, tmp_path / "c"))
    features(data, np.array([0]))
    [entry] = list_entries(tmp_path / "c")
    assert entry.is_in_use
    del data
    lock = DirectoryLock(entry.path)
    lock.release()
    assert not list_entries(tmp_path / "c")[0].is_in_use
