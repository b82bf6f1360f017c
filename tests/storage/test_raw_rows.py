"""Rows on object storage: listed, fetched once, and then read as those of a disk."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.base.locations import Location
from distsgd.data.cache import cached
from distsgd.data.cache_directory import Cache
from distsgd.data.cache_entries import CacheEntry, clear, list_entries
from distsgd.data.check import check
from distsgd.data.manifest import Manifest
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.errors import ConfigError, DataError
from tests.storage.conftest import KEY_ID, SECRET
from tests.storage.proxy import FaultProxy

LABEL = PrepareOptions(label=("label",))


def parquet(seed: int, num_rows: int = 20) -> bytes:
    chance = np.random.default_rng(seed)
    columns = {"a": chance.normal(size=num_rows), "label": chance.integers(0, 2, num_rows)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def put_both(files: dict[str, bytes], bucket: Location, directory: Path) -> None:
    """The same files in a bucket and in a directory."""
    for name, content in files.items():
        (bucket / name).write_bytes(content)
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def both(
    pattern: str, bucket: Location, tmp_path: Path, options: PrepareOptions = LABEL
) -> tuple[Manifest, Manifest]:
    """What is prepared from the bucket, and from the directory."""
    cache = tmp_path / "cache"
    there = prepare(f"{bucket}/{pattern}", tmp_path / "a", options=options, cache_dir=cache)
    here = prepare(f"{tmp_path}/rows/{pattern}", tmp_path / "b", options=options)
    return there, here


@pytest.mark.parametrize("pattern", ["*.parquet", "**/*.parquet", "day=*/[ab].parquet"])
def test_a_glob_names_the_same_rows_as_on_a_disk(
    pattern: str, bucket: Location, tmp_path: Path
) -> None:
    names = [".hidden.parquet", "a.parquet", "b.parquet", "day=3/a.parquet", "day=4/b.parquet"]
    names += ["day=4/.x/a.parquet", "notes.txt"]
    files = {name: parquet(i) for i, name in enumerate(names)}
    if pattern == "**/*.parquet":  # All files have the columns of the partitions, or none.
        files = {name: it for name, it in files.items() if "=" in name}
    put_both(files, bucket, tmp_path / "rows")
    there, here = both(pattern, bucket, tmp_path)
    assert there.digest == here.digest
    assert there.columns == here.columns
    assert [it.name for it in there.sources] == [
        it.name.replace(f"{tmp_path}/rows", str(bucket)) for it in here.sources
    ]


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def test_every_format_is_read_as_from_a_disk(bucket: Location, tmp_path: Path) -> None:
    table = pq.read_table(pa.BufferReader(parquet(0)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    csv = "a,label\n" + "".join(f"{i / 3},{i % 2}\n" for i in range(9))
    files = {
        "rows.arrow": bytes(sink.getvalue()),
        "rows.csv.gz": gzip.compress(csv.encode()),
        "train-images-idx3-ubyte": idx(np.arange(24).reshape(6, 2, 2)),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.arange(6) % 2)),
    }
    put_both(files, bucket, tmp_path / "rows")
    for i, name in enumerate([*files][:3]):
        place = tmp_path / str(i)
        place.mkdir()
        (place / "rows").symlink_to(tmp_path / "rows")
        there, here = both(name, bucket, place)
        assert there.digest == here.digest
        assert there.sources[0].name == f"{bucket}/{name}"


def test_a_list_and_test_rows_of_their_own_are_addresses_too(
    bucket: Location, tmp_path: Path
) -> None:
    put_both({f"{i}.parquet": parquet(i) for i in range(3)}, bucket, tmp_path / "rows")
    names = [f"{bucket}/0.parquet", str(tmp_path / "rows" / "1.parquet")]
    options = PrepareOptions(label=("label",), test_sources=(f"{bucket}/2.*",))
    made = prepare(names, tmp_path / "out", options=options, cache_dir=tmp_path / "cache")
    assert [it.name for it in made.sources] == [*names, f"{bucket}/2.parquet"]
    assert (made.train_rows, made.test_rows) == (40, 20)


def test_a_file_is_fetched_once_and_again_when_it_is_another(
    bucket: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    file, said = bucket / "rows.parquet", list[str]()
    file.write_bytes(parquet(0))

    def entry(seed: int = 0) -> Path:
        options = PrepareOptions(label=("label",), split_seed=seed)
        return cached(str(file), options=options, cache_dir=tmp_path / "c", on_message=said.append)

    first = entry()
    assert said[0] == f"preparing rows.parquet into {first} (once)"
    assert said[1].startswith(f"fetching {file}: 0.0 of 0.0 MB")
    assert entry(1) != first
    assert proxy.fetches("rows.parquet") == 1
    [raw] = [it for it in list_entries(tmp_path / "c") if it.fetched]
    assert raw.fetched == (str(file),)
    clear(tmp_path / "c", [raw.path.name], on_message=said.append)
    assert entry() == first
    assert proxy.fetches("rows.parquet") == 1, "what is prepared needs its files no more"
    file.write_bytes(parquet(1, num_rows=30))
    assert entry() != first
    assert proxy.fetches("rows.parquet") == 2


def test_a_damaged_copy_is_fetched_again(
    bucket: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    (bucket / "rows.parquet").write_bytes(parquet(0))
    for _ in range(2):
        report = check(bucket / "rows.parquet", cache=Cache(tmp_path))
        assert not report.problems
        [copy] = tmp_path.glob("*/0/rows.parquet")
        copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert proxy.fetches("rows.parquet") == 2


def test_of_very_many_files_several_share_an_entry(
    bucket: Location, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distsgd.data.fetch.MOST_ENTRIES", 2)
    files = {f"day={i}/rows.parquet": parquet(i) for i in range(7)}
    put_both(files, bucket, tmp_path / "rows")
    there, here = both("*/rows.parquet", bucket, tmp_path)
    assert there.digest == here.digest
    assert [len(it.fetched) for it in sorted(list_entries(tmp_path / "cache"), key=_size)] == [3, 4]
    (bucket / "day=7" / "rows.parquet").write_bytes(parquet(7))
    prepare(f"{bucket}/*/rows.parquet", tmp_path / "c", options=LABEL, cache_dir=tmp_path / "cache")
    assert proxy.fetches("day%3D0/rows.parquet") == 1, "the entry of the first four stays"


def _size(entry: CacheEntry) -> int:
    return len(entry.fetched)


def test_what_cannot_be_read_is_called_by_its_address(bucket: Location, tmp_path: Path) -> None:
    for name, content in {
        "cut.parquet": parquet(0)[:-4],
        "ragged.csv": b"a,label\n1,2,3\n",
        "empty.csv": b"",
        "images-idx3": idx(np.zeros((2, 2, 2)))[:-1],
        "text.csv": b"a,label\nx,1\n",
    }.items():
        (bucket / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            prepare(str(bucket / name), tmp_path / "out", options=LABEL, cache_dir=tmp_path / "c")
        assert str(caught.value).startswith(f"{bucket}/{name}: ")
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.parquet", "there is no such file"),
        ("none/*.parquet", "no file matches this glob"),
        ("there", "is a directory; name files or a glob such as"),
    ],
)
def test_an_address_of_no_file_is_a_data_error(name: str, said: str, bucket: Location) -> None:
    (bucket / "there" / "rows.parquet").write_bytes(parquet(0))
    [problem] = check(f"{bucket}/{name}").problems
    assert problem.startswith(f"{bucket}/{name}: {said}")


def test_an_address_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 's3'"):
        prepare("s33://bucket/rows.csv", tmp_path / "out", options=LABEL)
    with pytest.raises(DataError, match="has a wildcard in its bucket"):
        prepare("s3://buck*/rows.csv", tmp_path / "out", options=LABEL)


def test_no_key_is_written_down(bucket: Location, tmp_path: Path) -> None:
    (bucket / "rows.parquet").write_bytes(parquet(0))
    entry = cached(
        f"{bucket}/rows.parquet", options=LABEL, cache_dir=tmp_path, on_message=lambda _: None
    )
    assert json.loads((entry / "manifest.json").read_text())["sources"]
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert KEY_ID.encode() not in file.read_bytes()
            assert SECRET.encode() not in file.read_bytes()


def test_new_rows_are_read_as_those_of_training(bucket: Location, tmp_path: Path) -> None:
    put_both({"rows.parquet": parquet(0)}, bucket, tmp_path / "rows")
    path = tmp_path / "rows" / "rows.parquet"
    prepare(path, tmp_path / "out", options=LABEL)
    manifest = read_manifest(tmp_path / "out")
    [(here, _, _)] = read_features(str(path), manifest)
    address = f"{bucket}/rows.parquet"
    [(there, _, _)] = read_features(address, manifest, cache=Cache(tmp_path / "cache"))
    assert np.array_equal(here, there)
