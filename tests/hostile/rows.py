"""Files of rows: good ones to be damaged, and bombs; judged by `check` and `prepare`."""

from __future__ import annotations

import gzip
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.data.check import check
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare

Bomb = Callable[[], bytes]
_OPTIONS = PrepareOptions(("label",), test_fraction=0.2, standardise="mean_std")
_ROWS = 60


def judge(path: Path, work: Path) -> None:
    """Check the file, prepare it, check what was prepared; raises what any of them raises."""
    check(path)
    out = work / "prepared"
    shutil.rmtree(out, ignore_errors=True)
    prepare(path, out, options=_OPTIONS)
    report = check(out)
    assert not report.problems


def _columns() -> dict[str, pa.Array]:
    chance = np.random.default_rng(0)
    names = ["north", "south", "east", "wést"]
    return {
        "a": pa.array(chance.standard_normal(_ROWS)),
        "b": pa.array(chance.integers(-9, 9, _ROWS).astype(np.int16)),
        "x": pa.array(list(chance.standard_normal((_ROWS, 5)).astype(np.float32))),
        "v": pa.array(list(chance.standard_normal((_ROWS, 3))), pa.list_view(pa.float64())),
        "t": pa.ExtensionArray.from_storage(pa.bool8(), pa.array(np.arange(_ROWS) % 2, pa.int8())),
        "d": pa.array(np.arange(_ROWS)).cast(pa.decimal128(25, 2)),
        "text": pa.array([names[i] for i in chance.integers(0, 4, _ROWS)]),
        "code": pa.array([names[i] for i in chance.integers(0, 4, _ROWS)]).dictionary_encode(),
        "number": pa.array(chance.integers(0, 3, _ROWS)),
        "flag": pa.array(chance.integers(0, 2, _ROWS).astype(bool)),
    }


def _table(features: str, label: str) -> pa.Table:
    columns = _columns()
    return pa.table({name: columns[name] for name in features} | {"label": columns[label]})


def _tables() -> list[pa.Table]:
    return [
        _table("ab", "text"),
        _table("x", "number"),
        _table("ab", "code"),
        _table("ba", "flag"),
        _table("x", "a"),
        _table("v", "flag"),
        _framed(_table("td", "code")),
    ]


def _framed(table: pa.Table) -> pa.Table:
    """As a data frame writes it, with its index."""
    table = table.append_column("__index_level_0__", pa.array(np.arange(_ROWS)))
    return table.replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__"]}'})


def parquet_files() -> list[bytes]:
    files = []
    for number, table in enumerate(_tables()):
        for compression in ("none", "zstd", "snappy"):
            buffer = io.BytesIO()
            pq.write_table(
                table,
                buffer,
                compression=compression,
                row_group_size=(60, 20, 7)[number % 3],
                write_page_checksum=compression != "snappy",
                version="1.0" if compression == "snappy" and number != 3 else "2.6",
                data_page_version="2.0" if number % 2 else "1.0",
            )
            files.append(buffer.getvalue())
    return files


def arrow_files() -> list[bytes]:
    files = []
    for table in _tables():
        for compression in (None, "zstd", "lz4"):
            for writer in (pa.ipc.new_file, pa.ipc.new_stream):
                buffer = io.BytesIO()
                options = pa.ipc.IpcWriteOptions(compression=compression)
                with writer(buffer, table.schema, options=options) as file:
                    file.write_table(table, max_chunksize=25)
                files.append(buffer.getvalue())
    return files


def csv_files() -> list[bytes]:
    chance = np.random.default_rng(1)
    files = []
    for delimiter in (",", ";", "\t"):
        lines = [delimiter.join(("a", "b", "label"))]
        for i in range(_ROWS):
            a, b = chance.standard_normal(2)
            lines.append(delimiter.join((f"{a:.6g}", f"{b:.3f}", '"no, one"' if i % 3 else "wést")))
        files.append("\n".join(lines).encode() + b"\n")
    files.append(files[0].replace(b"\n", b"\r\n"))
    return files


def csv_gz_files() -> list[bytes]:
    return [gzip.compress(file, mtime=0) for file in csv_files()]


def _idx(values: np.ndarray, code: int) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, code, values.ndim]) + shape + values.tobytes()


def idx_labels() -> bytes:
    """What lies beside the images."""
    return _idx((np.arange(_ROWS) % 3).astype(np.uint8), 8)


def idx_files() -> list[bytes]:
    chance = np.random.default_rng(2)
    return [
        _idx(chance.integers(0, 256, (_ROWS, 4, 4)).astype(np.uint8), 8),
        _idx(chance.standard_normal((_ROWS, 3)).astype(">f4"), 0x0D),
        _idx(chance.standard_normal((_ROWS, 2, 2)).astype(">f8"), 0x0E),
    ]


def idx_gz_files() -> list[bytes]:
    return [gzip.compress(file, mtime=0) for file in idx_files()]


def _parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", **options)
    return buffer.getvalue()


def _arrow(table: pa.Table, compression: str = "zstd", *, stream: bool = False) -> bytes:
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    writer = pa.ipc.new_stream if stream else pa.ipc.new_file
    with writer(buffer, table.schema, options=options) as file:
        file.write_table(table)
    return buffer.getvalue()


def _zeros(rows: int) -> pa.Table:
    return pa.table({"a": np.zeros(rows), "label": np.zeros(rows, np.int64)})


def _wide(columns: int) -> pa.Table:
    return pa.table({f"c{i}": [1.0, 2.0] for i in range(columns)} | {"label": [0, 1]})


def _deep(levels: int) -> pa.Table:
    kind = pa.float64()
    for _ in range(levels):
        kind = pa.list_(kind)
    return pa.table({"a": pa.nulls(2, kind), "b": [1.0, 2.0], "label": [0, 1]})


def _long_label(rows: int, *, as_dictionary: bool) -> pa.Table:
    text = "x" * (1 << 20)
    values = pa.array([text] * (1 if as_dictionary else rows))
    if as_dictionary:
        values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), values)
    return pa.table({"a": np.zeros(rows), "label": values})


def _long_lists(rows: int) -> pa.Table:
    lists = pa.array([np.zeros(1 << 18)] * rows)
    return pa.table({"x": lists, "label": np.arange(rows) % 2})


def _views_of_one_list(rows: int, width: int) -> pa.Table:
    """Rows that are all the same long list, which is there once."""
    zeros = pa.array(np.zeros(rows, np.int32))
    sizes = pa.array(np.full(rows, width, np.int32))
    views = pa.ListViewArray.from_arrays(zeros, sizes, pa.array(np.zeros(width, np.int8)))
    return pa.table({"x": views, "label": np.arange(rows) % 2})


def parquet_bombs() -> list[Bomb]:
    return [
        lambda: _parquet(_zeros(2_000_000)),
        lambda: _parquet(_wide(5_000)),
        lambda: _parquet(_deep(30)),
        lambda: _parquet(_deep(90)),
        lambda: _parquet(_long_label(100_000, as_dictionary=True)),
        lambda: _parquet(_long_label(300, as_dictionary=False), use_dictionary=False),
        lambda: _parquet(_long_lists(100)),
        lambda: b"PAR1" + b"\x15" * (8 << 20) + (8 << 20).to_bytes(4, "little") + b"PAR1",
        lambda: b"PAR1" + b"\x19\xfc\xff\xff\xff\xff\x07\x1c" * 1000 + b"\xa0\x1f\0\0PAR1",
    ]


def arrow_bombs() -> list[Bomb]:
    return [
        lambda: _arrow(_zeros(50_000_000)),
        lambda: _arrow(_zeros(50_000_000), "lz4", stream=True),
        lambda: _arrow(_long_lists(400)),
        lambda: _arrow(_wide(5_000)),
        lambda: _arrow(_deep(30)),
        lambda: _arrow(_deep(60)),
        lambda: _arrow(_long_label(100_000, as_dictionary=True)),
        lambda: _arrow(_views_of_one_list(100, 1 << 19)),
        lambda: _arrow(_views_of_one_list(65_536, 1 << 21)),
        lambda: b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(1000),
        lambda: b"ARROW1\0\0" + bytes(1000) + b"\xff\xff\xff\x7fARROW1",
    ]


def _csv_wide(columns: int) -> bytes:
    names = ",".join(f"c{i}" for i in range(columns))
    return f"{names},label\n{'1,' * columns}0\n{'2,' * columns}1\n".encode()


def csv_bombs() -> list[Bomb]:
    return [
        lambda: _csv_wide(3_000),
        lambda: _csv_wide(32_000),
        lambda: _csv_wide(300_000),
        lambda: b"a" * 3_900_000 + b",label\n1,0\n2,1\n",
        lambda: b"a" * 5_000_000 + b",label\n1,0\n2,1\n",
        lambda: b"," * 4_000_000,
        lambda: b'a,label\n"' + b"0" * 8_000_000,
        lambda: b"a,label\n" + b"\n" * 10_000_000,
        lambda: b"a,label\n" + b"1," + b"9" * 4_000_000 + b"\n2,1\n",
        lambda: b"a,label\n" + b"1e999,0\n-1e999,1\n" * 10,
    ]


def csv_gz_bombs() -> list[Bomb]:
    return [
        lambda: gzip.compress(b"a,label\n" + b"0" * 300_000_000, 1),
        lambda: gzip.compress(b"a,label\n" + b"\n" * 300_000_000, 1),
        lambda: gzip.compress(b"a,label\n" + b"0,1\n" * 1_000_000, 1),
        lambda: gzip.compress(b"x" * 100_000_000, 1),
    ]


def idx_bombs() -> list[Bomb]:
    head = bytes([0, 0, 8, 3])
    return [
        lambda: head + b"\xff" * 12 + bytes(100),
        lambda: head + b"\0\0\0\x3c" + b"\x7f\xff\xff\xff" * 2 + bytes(100),
        lambda: head + b"\xff\xff\xff\xff" + b"\0\0\0\1" * 2 + bytes(100),
        lambda: bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255,
        lambda: head + b"\0\0\0\x3c" + b"\0\0\0\0" * 2,
    ]


def idx_gz_bombs() -> list[Bomb]:
    rows = (60).to_bytes(4, "big")
    edge = (2048).to_bytes(4, "big")
    return [
        lambda: gzip.compress(bytes([0, 0, 8, 3]) + rows + edge * 2 + bytes(60 << 22), 1),
        lambda: gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12, 1) + b"\0" * 1000,
        lambda: gzip.compress(bytes(100_000_000), 1),
    ]


BOMBS: dict[str, list[Bomb]] = {
    "parquet": parquet_bombs(),
    "arrow": arrow_bombs(),
    "csv": csv_bombs(),
    "csv.gz": csv_gz_bombs(),
    "idx": idx_bombs(),
    "idx.gz": idx_gz_bombs(),
}

if __name__ == "__main__":
    _, wanted, number, place = sys.argv
    Path(place).write_bytes(BOMBS[wanted][int(number)]())
