"""The memory a Parquet file would take is found before anything of it is decoded."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data import parquet_file
from distsgd.data.parquet_file import ParquetSource
from distsgd.data.thrift import CompactReader
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
    lists = [[1.0] * 5] * 300 + [[1.0] * 2000] + [[1.0] * 5] * 300
    pq.write_table(pa.table({"x": lists}), tmp_path / "x.parquet", data_page_version=version)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"lists that are not all of \d+ values"):
        read(tmp_path / "x.parquet")
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x15",  # The value is missing.
        b"\x15\x02\x05\x02\x02\x00",  # A field twice.
        b"\x15" + b"\xff" * 20 + b"\x00",  # An endless integer.
        b"\x15\xff\xff\xff\xff\x7f\x00",  # More than 32 bits.
        b"\x1c" * 100,  # Deep.
        b"\x18\x7f\x00",  # Text that is longer than all.
    ],
)
def test_metadata_that_two_readers_could_take_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"beyond|twice|integer|deep"):
        CompactReader(data).structure()
