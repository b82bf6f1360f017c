from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distsgd.data.sources.source import MemorySource, table_source
from distsgd.errors import DataError

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
