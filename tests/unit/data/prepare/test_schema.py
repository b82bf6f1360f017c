"""Which columns are features: index columns, patterns, exclusions, near names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from distsgd.data.check import check
from distsgd.data.manifest import Manifest
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.feature_columns import index_columns
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.data.tables import table_source
from distsgd.errors import DataError

Write = Callable[..., Path]
A, Y = [1.0, 2.0, 3.0], [0, 1, 0]
RANGE = {"kind": "range", "name": None, "start": 0, "stop": 3, "step": 1}


def framed(columns: dict[str, Any], *index: object) -> pa.Table:
    """A table with what pandas' `to_parquet` writes beside it about the index."""
    metadata = {"index_columns": index, "column_indexes": [], "columns": [], "pandas_version": "2"}
    return pa.table(columns).replace_schema_metadata({"pandas": json.dumps(metadata)})


def prepared(source: Any, out: Path, **options: Any) -> Manifest:
    return prepare(source, out, options=PrepareOptions(("label",), **options))


FRAMES = {
    "without a name": (framed({"a": A, "label": Y, "__index_level_0__": A}, "__index_level_0__"),),
    "with a name": (framed({"a": A, "label": Y, "id": A}, "id"),),
    "of text": (framed({"a": A, "label": Y, "id": ["u", "v", "w"]}, "id"),),
    "of two levels": (framed({"a": A, "label": Y, "day": A, "hour": Y}, "day", "hour"),),
    "of two levels, one without a name": (
        framed({"a": A, "label": Y, "day": A, "__index_level_1__": Y}, "day", "__index_level_1__"),
    ),
    "a range": (framed({"a": A, "label": Y}, RANGE),),
    "in one file only": (
        framed({"a": A, "label": Y, "id": A}, "id"),
        pa.table({"a": A, "label": Y, "id": A}),
    ),
    "in the second file only": (
        pa.table({"a": A, "label": Y}),
        framed({"a": A, "label": Y, "id": A}, "id"),
    ),
    "a range in one file": (
        framed({"a": A, "label": Y}, RANGE),
        framed({"a": A, "label": Y, "__index_level_0__": A}, "__index_level_0__"),
    ),
    "of Dask": (framed({"a": A, "label": Y, "__null_dask_index__": A}, "__null_dask_index__"),),
    "metadata lost": (pa.table({"a": A, "label": Y, "__index_level_0__": A}),),
    "by way of CSV": (framed({"Unnamed: 0": Y, "a": A, "label": Y}, RANGE),),
    "by way of CSV twice": (pa.table({"Unnamed: 0.1": Y, "Unnamed: 0": Y, "a": A, "label": Y}),),
    "of CSV, unnamed": (pa.table({"": Y, "a": A, "label": Y}),),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_the_index_of_a_frame_is_no_feature_and_that_is_said(tmp_path: Path, kind: str) -> None:
    tables = FRAMES[kind]
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"p{number}.parquet")
    glob = str(tmp_path / "p*.parquet")
    manifest = prepared(glob, tmp_path / "out")
    assert manifest.columns == ("a",)
    written = {name for table in tables for name in table.schema.names} - {"a", "label"}
    assert set(manifest.left_out) == written
    assert read_manifest(tmp_path / "out").left_out == manifest.left_out
    report = check(glob)
    assert not report.problems
    assert {column.name for column in report.columns if column.kind == "index"} == written
    # The bits are those of rows without an index.
    plain = [table.select(["a", "label"]).replace_schema_metadata() for table in tables]
    same = prepared(table_source(pa.concat_tables(plain)), tmp_path / "plain")
    assert same.digest == manifest.digest


@pytest.mark.parametrize("form", ["feather", "arrow", "table"])
def test_an_index_is_known_in_every_format(tmp_path: Path, form: str) -> None:
    table = framed({"a": A, "label": Y, "id": A}, "id")
    path = tmp_path / f"rows.{form}"
    source: Any = path
    if form == "feather":
        pyarrow.feather.write_feather(table, str(path))
    elif form == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        source = table_source(table)
    assert prepared(source, tmp_path / "out").columns == ("a",)


def test_an_index_that_is_named_is_taken(tmp_path: Path, write: Write) -> None:
    path = write(framed({"a": A, "label": Y, "id": Y}, "id"))
    manifest = prepared(path, tmp_path / "feature", features=("id", "a"))
    assert (manifest.columns, manifest.left_out) == (("id", "a"), ())
    label = prepare(path, tmp_path / "label", options=PrepareOptions(("id",)))
    assert (label.columns, label.labels, label.left_out) == (("a", "label"), ("id",), ())
    silent = prepared(path, tmp_path / "silent", exclude=("id",))
    assert (silent.columns, silent.left_out) == (("a",), ())
    pattern = prepared(path, tmp_path / "pattern", features=("*",))
    assert (pattern.columns, pattern.left_out) == (("a",), ("id",))


def test_new_rows_need_no_index(tmp_path: Path, write: Write) -> None:
    manifest = prepared(write(framed({"a": A, "label": Y, "id": A}, "id")), tmp_path / "out")
    [(x_NI, _, _)] = read_features(write({"a": A}, "new.parquet"), manifest)
    assert x_NI[:, 0].tolist() == A


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{", b"[]", b"7", b'{"index_columns": 7}', b'{"index_columns": [["a"]]}', b"[" * 9999],
)
def test_metadata_that_cannot_be_names_no_index(metadata: bytes) -> None:
    schema = pa.schema([("a", pa.int8())], {b"pandas": metadata})
    assert index_columns(schema) == frozenset()


def test_a_column_without_a_name_behind_others_is_no_index() -> None:
    assert index_columns(pa.schema([("a", pa.int8()), ("Unnamed: 1", pa.int8())])) == frozenset()


COLUMNS = dict.fromkeys(("c2", "c10", "d1", "label", "c1", "x[0]"), A) | {"id": ["u", "v", "w"]}


@pytest.mark.parametrize(
    ("features", "exclude", "chosen"),
    [
        ("rest", ("id",), ("c2", "c10", "d1", "c1", "x[0]")),
        ("rest", ("id", "c*"), ("d1", "x[0]")),
        ("rest", ("[ix]*",), ("c2", "c10", "d1", "c1")),
        (("c*",), (), ("c2", "c10", "c1")),
        (("c?", "d1"), (), ("c2", "c1", "d1")),
        (("d1", "c1", "c*"), (), ("d1", "c1", "c2", "c10")),
        (("*1",), ("c1",), ("d1",)),
        (("x[0]",), (), ("x[0]",)),
        (("l*", "*0", "c1"), (), None),
        (("c*",), ("label",), ("c2", "c10", "c1")),
    ],
)
def test_patterns_choose_columns_in_the_order_of_the_file(
    tmp_path: Path,
    write: Write,
    features: Any,
    exclude: tuple[str, ...],
    chosen: tuple[str, ...] | None,
) -> None:
    path = write(COLUMNS)
    options = PrepareOptions(("label",), features, exclude=exclude, label_kind="class")
    if chosen is None:  # The label is no feature, so the pattern means nothing.
        with pytest.raises(DataError, match=r"no feature column that matches 'l\*'"):
            prepare(path, tmp_path / "out", options=options)
        return
    manifest = prepare(path, tmp_path / "out", options=options)
    assert manifest.columns == chosen
    again = prepare(
        path, tmp_path / "again", options=PrepareOptions(("label",), chosen, label_kind="class")
    )
    assert again.digest == manifest.digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ("ids",)}, "has no excluded column 'ids' (did you mean 'id'"),
        ({"exclude": ("z*",)}, "has no excluded column that matches 'z*'"),
        ({"features": ("D1",)}, "has no feature column 'D1' (did you mean 'd1'"),
        ({"features": ("q*",)}, "has no feature column that matches 'q*'"),
        ({"label": ("Label",)}, "has no label column 'Label' (did you mean 'label'?)"),
        ({"label": ("zzz",)}, "has no label column 'zzz'; its columns are: c2, c10"),
        ({"exclude": ("*",)}, "has no feature columns besides the label"),
    ],
)
def test_a_name_or_pattern_for_nothing_is_answered_with_near_names(
    tmp_path: Path, write: Write, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepare(
            write(COLUMNS),
            tmp_path / "out",
            options=PrepareOptions(**{"label": ("label",)} | options),
        )
    assert message in str(caught.value)


def test_files_may_differ_in_columns_that_are_excluded(tmp_path: Path, write: Write) -> None:
    paths = [
        write({"a": A, "label": Y}, "one.parquet"),
        write({"a": A, "label": Y, "note": ["x"] * 3}, "two.parquet"),
    ]
    assert prepared(paths, tmp_path / "out", exclude=("no*",)).columns == ("a",)
    with pytest.raises(DataError, match="has column 'note', which"):
        prepared(paths, tmp_path / "rest")


def test_a_frame_of_nothing_but_an_index_says_so(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match=r"besides the label \(label\) and the index \(id\)"):
        prepared(write(framed({"label": Y, "id": A}, "id")), tmp_path / "out")
