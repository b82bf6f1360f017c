from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.sources import csv_text
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.formats import open_file
from distsgd.errors import DataError


def source_of(path: Path, text: str, name: str = "rows.csv") -> CsvSource:
    (path / name).write_text(text, "utf-8")
    source = open_file(path / name)
    assert isinstance(source, CsvSource)
    return source


def values_of(source: CsvSource) -> dict[str, list[Any]]:
    table = pa.Table.from_batches(source.batches(source.schema.names))
    return {name: table[name].to_pylist() for name in table.column_names}


def test_each_column_has_the_narrowest_type_of_all_its_values(tmp_path: Path) -> None:
    source = source_of(
        tmp_path,
        "a,b,c,d,e\n1,1,true,red,\n 2 ,2.5,FALSE,blue,NA\n-3,1e3,true,7,4\n",
    )
    assert source.num_rows == 3
    assert values_of(source) == {
        "a": [1, 2, -3],
        "b": [1.0, 2.5, 1000.0],
        "c": [True, False, True],
        "d": ["red", "blue", "7"],
        "e": [None, None, 4],
    }


def test_a_type_does_not_depend_on_where_a_value_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 64)
    text = "a,b\n" + "1,2\n" * 200 + "1.5,x\n"
    source = source_of(tmp_path, text)
    assert [str(kind) for kind in source.schema.types] == ["double", "string"]
    assert source.num_rows == 201
    assert values_of(source)["b"][-2:] == ["2", "x"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "ROWS.CSV"])
def test_the_delimiter_is_the_one_of_the_header(tmp_path: Path, delimiter: str, name: str) -> None:
    text = f'\ufeff"x"{delimiter}y\r\n1{delimiter}2\r\n'
    assert values_of(source_of(tmp_path, text, name)) == {"x": [1], "y": [2]}


def test_a_gzipped_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n"))
    source = open_file(tmp_path / "rows.csv.gz")
    assert isinstance(source, CsvSource)
    assert values_of(source) == {"x": [1], "y": [2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1,2,3\n4,5,6\n", "has no header"),
        ("a,,b\n1,2,3\n", "column without a name"),
        ("a,b\n1,2\n3\n", r"row 1 \(line 3\) has 1 values and the header 2: '3'"),
        (",".join(f"c{i}" for i in range(32_769)), "has 32769 columns; at most 32768"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source_of(tmp_path, text)


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(
        DataError, match=r"line 2 has the byte 0xff, which is no UTF-8; .* encoding = \"latin-1\""
    ):
        open_file(tmp_path / "rows.csv")


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    assert source_of(tmp_path, "a,b\n").num_rows == 0


def test_rows_are_prepared_and_a_hole_is_named_by_its_row(tmp_path: Path) -> None:
    options = PrepareOptions(label=("kind",), standardise="mean_std")
    source_of(tmp_path, "x,kind\n1,red\n2,blue\n3,red\n")
    manifest = prepare(tmp_path / "rows.csv", tmp_path / "out", options=options)
    assert manifest.class_names == ("blue", "red")
    assert np.allclose(manifest.shift, 2.0)
    source_of(tmp_path, "x,kind\n1,red\n,blue\n")
    with pytest.raises(DataError, match="column 'x', row 1: null feature"):
        prepare(tmp_path / "rows.csv", tmp_path / "other", options=options)


def test_columns_of_each_kind_stay_apart_among_many(tmp_path: Path) -> None:
    kinds = [("1", "-2"), ("1", "2.5"), ("0", "true"), ("1", "x"), ("NA", "3"), ("NA", "")]
    names = ",".join(f"c{i}" for i in range(600))
    rows = [",".join(pair[row] for pair in kinds * 100) for row in (0, 1)]
    (tmp_path / "many.csv").write_text("\n".join((names, *rows)) + "\n")
    source = CsvSource(tmp_path / "many.csv")
    expected = [pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.int64(), pa.int64()]
    assert source.schema.types == expected * 100
    (batch,) = source.batches(source.schema.names)
    values = [[1, -2], [1.0, 2.5], [False, True], ["1", "x"], [None, 3], [None, None]]
    assert [column.to_pylist() for column in batch.columns] == values * 100
