"""Columns in the names of directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data.cache import cached
from distsgd.data.check import check
from distsgd.data.dataset import DataSet
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.data.sources.formats import open_sources
from distsgd.data.sources.partitions import partition_of
from distsgd.errors import DataError

A = [1.0, 2.0]


def laid(base: Path, *places: str, **columns: Any) -> str:
    """A small file at each place, and the glob that finds all of them."""
    for number, place in enumerate(places):
        path = base / place / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {"a": [v + 10 * number for v in A], "label": [0, 1], **columns}
        pq.write_table(pa.table(own), path)
    return str(base / "**" / "*.parquet")


def values(spec: Any, column: str, **options: Any) -> list[object]:
    """The values of a column over all files."""
    found: list[object] = []
    for source in open_sources(spec, **options):
        for batch in source.batches([column]):
            found += batch.column(column).to_pylist()
    return found


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("0", "12"), [0, 12]),
        (("-1", "+7"), [-1, 7]),
        (("01", "02"), [1, 2]),
        (("01", "1"), ["01", "1"]),
        (("1", "x"), ["1", "x"]),
        (("1", "1.5"), [1.0, 1.5]),
        (("-.5", "2e-3"), [-0.5, 0.002]),
        (("1.5", "1.50"), ["1.5", "1.50"]),
        (("1.5", "x"), ["1.5", "x"]),
        (("nan", "1"), ["nan", "1"]),
        (("true", "False"), [True, False]),
        (("true", "TRUE"), ["true", "TRUE"]),
        (("true", "1"), ["true", "1"]),
        (("true", "__HIVE_DEFAULT_PARTITION__"), [True, None]),
        (("1", "__HIVE_DEFAULT_PARTITION__"), [1, None]),
        (("u", "__HIVE_DEFAULT_PARTITION__"), ["u", None]),
        (("a%2Fb", "1%3D2"), ["a/b", "1=2"]),
        (("x=y", "1" * 30), ["x=y", "1" * 30]),
        (("٣", "4"), ["٣", "4"]),
    ],
)
def test_values_of_all_files_are_of_one_type_or_all_are_text(
    tmp_path: Path, texts: tuple[str, str], expected: list[object]
) -> None:
    paths = [tmp_path / f"k={text}" for text in texts]
    laid(tmp_path, *(path.name for path in paths))
    found = values([path / "part-0.parquet" for path in paths], "k")
    assert found == [value for value in expected for _ in A]
    assert [type(value) for value in found[::2]] == [type(value) for value in expected]


def test_a_partition_is_a_feature_and_its_values_are_known_again(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "shift=0/day=3", "shift=1/day=4")
    manifest = prepare(glob, tmp_path / "out", options=PrepareOptions(("label",)))
    assert manifest.columns == ("a", "shift", "day")
    assert manifest.statistics.maximum == (12.0, 1.0, 4.0)
    # A single file that is named, as a user predicts.
    single = tmp_path / "d" / "shift=1" / "day=4" / "part-0.parquet"
    [(x_NI, _, _)] = read_features(str(single), manifest)
    assert x_NI.tolist() == [[11.0, 1.0, 4.0], [12.0, 1.0, 4.0]]
    report = check(glob)
    assert not report.problems
    assert [column.name for column in report.columns] == ["a", "label", "shift", "day"]


@pytest.mark.parametrize(("texts", "names"), [("01", (0, 1)), ("7b", ("7", "b"))])
def test_a_partition_is_a_label_and_is_read_as_training_read_it(
    tmp_path: Path, texts: str, names: tuple[object, ...]
) -> None:
    glob = laid(tmp_path / "d", *(f"k={text}" for text in texts))
    options = PrepareOptions(("k",), ("a",))
    manifest = prepare(glob, tmp_path / "out", options=options)
    assert manifest.class_names == names
    for number, text in enumerate(texts):
        path = tmp_path / "d" / f"k={text}" / "part-0.parquet"
        [(_, target, _)] = read_features(path, manifest, labels="required")
        assert target is not None
        assert target.tolist() == [number, number]


def test_a_class_keeps_the_zeros_of_its_directory(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=007", "k=010")
    manifest = prepare(glob, tmp_path / "out", options=PrepareOptions(("k",), ("a",)))
    assert manifest.class_names == ("007", "010")
    number = PrepareOptions(("k",), ("a",), label_kind="number")
    assert prepare(glob, tmp_path / "number", options=number).label_kind == "number"
    assert (
        prepare(glob, tmp_path / "feature", options=PrepareOptions(("label",))).columns[-1] == "k"
    )
    # Training had 7 and 10: 007 is none of them.
    plain = laid(tmp_path / "p", "k=7", "k=10")
    trained = prepare(plain, tmp_path / "plain", options=PrepareOptions(("k",), ("a",)))
    with pytest.raises(
        DataError, match=r"label '007' is none of the classes of training \(7, 10\)"
    ):
        list(read_features(glob, trained, labels="required"))


def test_text_of_directories_as_a_feature_is_refused_by_where_it_is_from(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "day=2020-01-01", "day=2020-01-02")
    with pytest.raises(DataError, match=r"column 'day' \(of directories day=\.\.\.\) is text"):
        prepare(glob, tmp_path / "out", options=PrepareOptions(("label",)))


def test_nothing_but_partitions_can_be_read(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=0/y=1", "k=1/y=0")
    manifest = prepare(glob, tmp_path / "out", options=PrepareOptions(("y",), ("k",)))
    assert (manifest.train_rows, manifest.columns) == (4, ("k",))


def test_test_files_are_read_as_the_training_files(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=7", "k=b")
    laid(tmp_path / "t", "k=7")
    test = str(tmp_path / "t" / "k=7" / "part-0.parquet")
    options = PrepareOptions(("k",), test_sources=(test,))
    manifest = prepare(glob, tmp_path / "out", options=options)
    assert (manifest.class_names, manifest.test_rows) == (("7", "b"), 2)
    rest = PrepareOptions(("label",), test_sources=(test,), exclude=("k",))
    assert prepare(glob, tmp_path / "rest", options=rest).columns == ("a",)


def test_only_directories_below_what_all_files_share_count(tmp_path: Path) -> None:
    base = tmp_path / "run=3"
    glob = laid(base / "d", "k=0", "k=1")
    files = [base / "d" / f"k={k}" / "part-0.parquet" for k in (0, 1)]
    specs: list[Any] = [glob, files, [str(base / "d/k=0/*.parquet"), files[1]]]
    for spec in (*specs, str(base / "d/k=[01]/*")):
        assert [source.schema.names for source in open_sources(spec)] == [["a", "label", "k"]] * 2
    for single in (files[0], str(base / "d/k=0/*.parquet")):
        assert open_sources(single)[0].schema.names == ["a", "label"]
        assert open_sources(single, named=["k"])[0].schema.names == ["a", "label", "k"]
    one = laid(tmp_path / "e", "k=5")
    assert values(one, "k") == [5, 5]


def test_a_partition_may_be_a_column_that_agrees(tmp_path: Path) -> None:
    for number, own in enumerate(([0, 0], [0.0, 0.0], ["0", "0"], [False, False])):
        glob = laid(tmp_path / f"d{number}", "k=0", k=own)
        assert values(glob, "k") == own


@pytest.mark.parametrize("own", [[0, 1], ["0", "x"], [None, 0], [0.0, 0.5], [False, True]])
def test_a_partition_that_says_other_than_the_column_is_refused(
    tmp_path: Path, own: list[object]
) -> None:
    glob = laid(tmp_path / "d", "k=0", k=own)
    with pytest.raises(DataError, match=r"column 'k', row [01]: is .*, but the file lies in k=0"):
        values(glob, "k")
    assert "but the file lies in k=0" in check(glob).problems[0]
    assert values(glob, "a") == A
    options = PrepareOptions(("label",), exclude=("k",))
    assert prepare(glob, tmp_path / "out", options=options).columns == ("a",)


def test_files_of_other_partitions_are_refused(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=0", "other")
    with pytest.raises(DataError, match=r"other/part-0\.parquet: lies in no directory k=\.\.\."):
        prepare(glob, tmp_path / "out", options=PrepareOptions(("label",)))
    assert "lies in no directory k=" in check(glob).problems[0]
    options = PrepareOptions(("label",), exclude=("k",))
    assert prepare(glob, tmp_path / "out", options=options).columns == ("a",)
    with pytest.raises(DataError, match="has no feature column 'k'"):
        prepare(glob, tmp_path / "named", options=PrepareOptions(("label",), ("a", "k")))


def test_a_key_twice_in_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lies in two directories k=\.\.\."):
        partition_of(tmp_path / "k=1" / "k=2" / "x.parquet", below=tmp_path)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a=1/b=2/x.parquet", {"a": "1", "b": "2"}),
        ("=1/a=/x.parquet", {"a": ""}),
        ("a=1/plain/b=2=3/x=9.parquet", {"a": "1", "b": "2=3"}),
        ("my%20key=1/x.parquet", {"my key": "1"}),
        ("a=__HIVE_DEFAULT_PARTITION__/x", {"a": None}),
    ],
)
def test_partitions_of_a_path(
    tmp_path: Path, place: str, expected: Mapping[str, str | None]
) -> None:
    assert partition_of(tmp_path / place, below=tmp_path) == expected


def test_a_null_partition_is_a_null_of_a_row(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=0", "k=__HIVE_DEFAULT_PARTITION__")
    with pytest.raises(DataError, match="column 'k', row 0: null feature"):
        prepare(glob, tmp_path / "out", options=PrepareOptions(("label",)))


def test_the_cache_keeps_apart_what_is_named_in_other_ways(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=0")
    single = str(tmp_path / "d" / "k=0" / "part-0.parquet")
    columns = []
    for spec in (glob, single):
        entry = cached(
            spec,
            options=PrepareOptions(("label",)),
            cache_dir=tmp_path / "cache",
            on_message=lambda _: None,
        )
        columns.append(DataSet.open(entry).manifest.columns)
    assert columns == [("a", "k"), ("a",)]


def test_the_cache_refuses_files_that_come_while_it_prepares(tmp_path: Path) -> None:
    glob = laid(tmp_path / "d", "k=0")

    def one_more(_: str) -> None:
        laid(tmp_path / "d", "k=0", "k=1")

    options = PrepareOptions(("label",))
    with pytest.raises(DataError, match="its files changed a moment ago"):
        cached(glob, options=options, cache_dir=tmp_path / "cache", on_message=one_more)
    entry = cached(glob, options=options, cache_dir=tmp_path / "cache", on_message=lambda _: None)
    assert DataSet.open(entry).manifest.train_rows == 4


def test_csv_files_have_partitions_too(tmp_path: Path) -> None:
    for k in (0, 1):
        (tmp_path / f"k={k}").mkdir()
        (tmp_path / f"k={k}" / "rows.csv").write_text("a,label\n1,0\n2,1\n")
    assert values(str(tmp_path / "*" / "*.csv"), "k") == [0, 0, 1, 1]
