"""The memory a Parquet file would take is found before anything of it is decoded."""

from __future__ import annotations

import itertools
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data.guard.parquet_pages import CompactReader, read_chunks
from distsgd.data.sources import parquet_file
from distsgd.data.sources.parquet_file import ParquetSource
from distsgd.errors import DataError

CODECS = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")


def read(path: Path) -> pa.Table:
    source = ParquetSource(path)
    return pa.Table.from_batches(list(source.batches(source.schema.names)))


@pytest.mark.parametrize(("codec", "version"), list(itertools.product(CODECS, ("1.0", "2.0"))))
def test_sound_files_of_every_codec_are_read(
    codec: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "_FEW_VALUES", 0)
    monkeypatch.setattr(parquet_file, "_MOST_VALUES_A_BYTE", 0)
    chance = np.random.default_rng(0)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(chance.integers(0, 3, 7000)), 7)
    texts = pa.array([f"w{i % 97}" for i in range(1000)])
    table = pa.table({"a": chance.standard_normal(1000), "t": texts, "x": lists})
    for rows, encoded in ((1000, True), (77, False)):
        pq.write_table(
            table,
            tmp_path / "x.parquet",
            compression=codec,
            data_page_version=version,
            row_group_size=rows,
            use_dictionary=encoded,
            data_page_size=500,
        )
        found = read(tmp_path / "x.parquet")
        assert found["a"].to_pylist() == table["a"].to_pylist()
        assert found["t"].to_pylist() == table["t"].to_pylist()
        assert found["x"].to_pylist() == table["x"].to_pylist()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_page_too_large_to_decompress_is_refused_before_it_is(
    version: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.parquet"
    pq.write_table(
        pa.table({"a": np.zeros(40_000_000)}),
        path,
        compression="zstd",
        use_dictionary=False,
        data_page_size=1 << 30,
        data_page_version=version,
        row_group_size=40_000_000,
        max_rows_per_page=40_000_000,
        write_batch_size=40_000_000,
    )
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"pages of 305 MiB decompressed"):
        read(path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_one_list_of_very_many_values_is_refused_before_it_is_decoded(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "_FEW_VALUES", 1000)
    monkeypatch.setattr(parquet_file, "_MOST_VALUES_A_BYTE", 0)
    lists = [[1.0] * 5] * 300 + [[1.0] * 2000] + [[1.0] * 5] * 300
    pq.write_table(pa.table({"x": lists}), tmp_path / "x.parquet", data_page_version=version)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"lists that are not all of \d+ values"):
        read(tmp_path / "x.parquet")
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x15", "beyond"),
        (b"\x15\x02\x05\x02\x02\x00", "twice"),
        (b"\x15" + b"\xff" * 20 + b"\x00", "more than ten bytes"),
        (b"\x15\xff\xff\xff\xff\x7f\x00", "32 bits"),
        (b"\x1c" * 100 + b"\x00" * 101, "deep"),
        (b"\x18\x7f\x00", "beyond"),
    ],
)
def test_metadata_that_two_readers_could_take_differently_is_refused(
    data: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CompactReader(data).structure()


def test_columns_that_point_at_the_same_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {name: np.arange(1000.0) for name in "ab"}
    pq.write_table(pa.table(columns), path, use_dictionary=False, compression="none")
    with path.open("rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as data:
        first, second = read_chunks(data, 2)[0]
        assert len(list(second.pages(data))) == 1
        cut = replace(second, num_bytes=second.num_bytes - 200)
        with pytest.raises(ValueError, match="a page that ends at byte"):
            list(cut.pages(data))
    # What the footer says of the second column's bytes, made as long as the file.
    said, forged_size = (b"\x16" + _varint(2 * size) for size in (first.num_bytes, 1 << 20))
    forged = path.read_bytes()
    footer = len(forged) - 8 - int.from_bytes(forged[-8:-4], "little")
    assert said in forged[footer:]
    body = forged[footer:-8].replace(said, forged_size)
    size = len(body).to_bytes(4, "little")
    path.write_bytes(forged[:footer] + body + size + forged[-4:])
    with pytest.raises(DataError, match="columns of more bytes than the file"):
        read(path)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
