from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.data.cache import cached
from distsgd.data.check import check
from distsgd.data.dataset import DataSet
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.sources.formats import open_file, open_sources
from distsgd.data.sources.idx_file import IdxSource, labels_file_of
from distsgd.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(array: NDArray[Any]) -> bytes:
    kind = array.dtype.str[1:]
    head = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def written(
    path: Path, *, rows: int = 20, suffix: str = ""
) -> tuple[Path, NDArray[Any], NDArray[Any]]:
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (rows, 4, 3), np.uint8)
    labels = np.arange(rows, dtype=np.uint8) % 3
    for name, array in ((IMAGES, images), (LABELS, labels)):
        content = idx_bytes(array)
        (path / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return path / f"{IMAGES}{suffix}", images, labels


def columns_of(source: Any) -> dict[str, NDArray[Any]]:
    batches = list(source.batches(source.schema.names))
    return {
        name: np.concatenate([np.array(batch.column(name).to_pylist()) for batch in batches])
        for name in source.schema.names
    }


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_and_the_labels_next_to_them_are_two_columns(tmp_path: Path, suffix: str) -> None:
    path, images, labels = written(tmp_path, suffix=suffix)
    source = open_file(path)
    assert (source.num_rows, source.schema.names) == (20, ["image", "label"])
    found = columns_of(source)
    assert np.array_equal(found["image"], images.reshape(20, 12))
    assert np.array_equal(found["label"], labels)
    assert source.schema.field("image").metadata == {b"shape": b"4x3"}


@given(kind=st.sampled_from(sorted(CODES)), shape=st.lists(st.integers(1, 4), min_size=1))
def test_every_type_and_number_of_dimensions_is_read(
    tmp_path_factory: pytest.TempPathFactory, kind: str, shape: list[int]
) -> None:
    shape = shape[:8]
    values = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    path = tmp_path_factory.mktemp("idx") / "numbers"
    path.write_bytes(idx_bytes(values))
    (found,) = columns_of(IdxSource(path)).values()
    assert np.array_equal(found.reshape(shape), values)


def test_labels_are_found_gzipped_or_not(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    (tmp_path / LABELS).rename(tmp_path / "elsewhere")
    assert labels_file_of(path) is None
    assert open_file(path).schema.names == ["image"]
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(20, np.uint8))))
    assert labels_file_of(path) == tmp_path / f"{LABELS}.gz"
    assert labels_file_of(tmp_path / "images.parquet") is None


def test_rows_are_prepared_as_those_of_any_table(tmp_path: Path) -> None:
    path, images, labels = written(tmp_path, suffix=".gz")
    prepare(path, tmp_path / "out", options=PrepareOptions(label=("label",)))
    train = DataSet.open(tmp_path / "out").train
    x_NI, y_N = np.empty((20, 12), np.float32), np.empty(20, np.int64)
    train.gather_range_inplace(0, 20, x_NI=x_NI, target=y_N, squared_norms_N=None)
    rows = train.source_rows(np.arange(20))
    assert np.array_equal(x_NI, images.reshape(20, 12)[rows])
    assert np.array_equal(y_N, labels[rows])


def test_other_labels_are_prepared_again(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    options = PrepareOptions(label=("label",))

    def entry() -> Path:
        return cached(path, options=options, cache_dir=tmp_path / "c", on_message=lambda _: None)

    before = entry()
    assert entry() == before
    (tmp_path / LABELS).write_bytes(idx_bytes(np.arange(20, dtype=np.int32) % 2))
    assert entry() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08", "is not a Parquet file"),
        (b"\0\0\x08\x03" + b"\0" * 8, "cut short"),
        (b"\0\0\x08\x09" + b"\0\0\0\1" * 9, "is not an IDX file"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 28, 28), "bytes cannot hold that"),
        (b"\0\0\x0e\x03" + struct.pack(">3I", 1, 2**32 - 1, 2**32 - 1), "MiB a row"),
        (b"\0\0\x08\x02" + struct.pack(">2I", 3, 0), "a row must hold a number"),
        (idx_bytes(np.zeros((3, 2), np.uint8)) + b"x", "holds more than the 3 rows"),
    ],
)
def test_a_forged_or_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        columns_of(open_file(path))


def test_a_gzip_that_claims_more_than_it_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.gz"
    head = b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 28, 28)
    path.write_bytes(gzip.compress(head + bytes(1000)))
    with pytest.raises(DataError, match="bytes cannot hold that"):
        open_file(path)
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 30, 8, 8) + bytes(1000)))
    with pytest.raises(DataError, match="cut short"):
        columns_of(open_file(path))


def test_no_damage_to_a_gzip_is_anything_but_a_data_error(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, suffix=".gz")
    content = path.read_bytes()
    for at in range(2, len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        assert check(path).is_prepared is False


def test_labels_that_do_not_fit_their_images_are_refused(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    (tmp_path / LABELS).write_bytes(idx_bytes(np.zeros(19, np.uint8)))
    with pytest.raises(DataError, match="has 19 labels, but"):
        open_sources(path)
    (tmp_path / LABELS).write_bytes(idx_bytes(np.zeros((20, 2), np.uint8)))
    with pytest.raises(DataError, match="one number a row"):
        open_sources(path)


def test_labels_that_change_while_images_are_read_are_noticed(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    source = open_file(path)
    source.check_unchanged()
    (tmp_path / LABELS).write_bytes(idx_bytes(np.zeros(20, np.int32)))
    with pytest.raises(DataError, match="changed while it was read"):
        source.check_unchanged()
