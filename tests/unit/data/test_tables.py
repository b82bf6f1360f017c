from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data.sources.parquet_file import ParquetSource
from distsgd.data.tables import MemorySource, arrays_source, table_source
from distsgd.errors import DataError

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, world", "is not a Parquet file"),
        (b"PAR1" + b"x" * 40, "cut short"),
        (b"PAR1", "cut short"),
        (b"PAR1" + b"x" * 40 + b"PAR1", "cannot be read"),
        (b"PARE" + b"x" * 40 + b"PARE", "encrypted"),
    ],
)
def test_a_foreign_or_truncated_file_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(DataError, match=message):
        ParquetSource(tmp_path / "rows.parquet")


def test_a_flipped_bit_in_a_page_is_found(write: Write) -> None:
    path = write({"a": np.arange(100.0)}, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[content.index(np.float64(50).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        list(ParquetSource(path).batches(["a"]))


def test_no_damage_to_a_file_is_anything_but_a_data_error(write: Write, tmp_path: Path) -> None:
    columns = {"a": np.arange(50.0), "b": [str(i) for i in range(50)], "c": [[1, 2]] * 50}
    path = write(columns)
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        (tmp_path / "damaged.parquet").write_bytes(damaged)
        try:
            source = ParquetSource(tmp_path / "damaged.parquet")
            list(source.batches([name for name in columns if name in source.schema.names]))
        except DataError:
            continue


def test_a_file_that_changes_is_noticed(write: Write) -> None:
    path = write({"a": [1.0]})
    source = ParquetSource(path)
    source.check_unchanged()
    write({"a": [1.0] * 100})
    with pytest.raises(DataError, match="changed while it was read"):
        source.check_unchanged()


def test_batches_are_bounded_in_bytes(tmp_path: Path) -> None:
    lists = pa.FixedSizeListArray.from_arrays(np.zeros(2000 * 4096, np.float32), 4096)
    pq.write_table(pa.table({"x": lists}), tmp_path / "wide.parquet")
    rows = [batch.num_rows for batch in ParquetSource(tmp_path / "wide.parquet").batches(["x"])]
    assert sum(rows) == 2000
    assert max(rows) <= (16 << 20) // (4096 * 8)


def test_arrays_that_do_not_fit_are_refused() -> None:
    for x, y in ((np.zeros(3), np.zeros(3)), (np.zeros((3, 1)), np.zeros(2))):
        with pytest.raises(DataError, match="do not fit"):
            arrays_source(x, y)


def test_a_row_too_wide_to_decode_is_refused_before_it_is(tmp_path: Path) -> None:
    # One list of 9 million equal numbers takes a few kilobytes; its type tells its length.
    lists = pa.FixedSizeListArray.from_arrays(np.zeros(9_000_000, np.int8), 9_000_000)
    pq.write_table(pa.table({"x": lists}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
    with pytest.raises(DataError, match="rows of 68 MiB"):
        next(ParquetSource(tmp_path / "bomb.parquet").batches(["x"]))


TABLE = pa.table({"a": [1.0, 2.0, 3.0], "label": [0, 1, 0]})


class Frame:
    """A data frame of another library: all that is known of it is that it hands out Arrow data."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Batch:
    """The same, of one batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._batch.__arrow_c_array__(requested_schema)


TABLES: dict[str, Callable[[], Any]] = {
    "table": lambda: TABLE,
    "batch": lambda: TABLE.to_batches()[0],
    "reader": TABLE.to_reader,
    "frame": lambda: Frame(TABLE),
    "batch of a frame": lambda: Batch(TABLE.to_batches()[0]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_kind_gives_its_rows_more_than_once(kind: str) -> None:
    source = table_source(TABLES[kind]())
    assert isinstance(source, MemorySource)
    for _ in range(2):
        assert pa.Table.from_batches(source.batches(["a", "label"])).equals(TABLE)


def test_what_a_frame_says_of_its_index_is_kept() -> None:
    table = TABLE.replace_schema_metadata({"pandas": '{"index_columns": ["a"]}'})
    assert table_source(Frame(table)).schema.metadata == table.schema.metadata


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1, 2], r"is a builtins\.list; must be a pyarrow Table"),
        ({"a": [1]}, r"is a builtins\.dict; must be"),
        (np.eye(2), r"is a numpy\.ndarray; must be"),
        (None, r"is a builtins\.NoneType; must be"),
        (pa.chunked_array([[1, 2]]), "cannot be read as a table"),
        (pa.array([1, 2]), "cannot be read as a table"),
    ],
)
def test_what_is_no_table_is_refused_by_its_name(table: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table_source(table)
