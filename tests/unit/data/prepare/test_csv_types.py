"""One typing over all files, and labels that meet whatever they are written in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data.check import check
from distsgd.data.manifest import Manifest
from distsgd.data.options import CsvSettings, PrepareOptions
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.errors import DataError

Kind = Literal["auto", "class", "number"]


def csv_of(tmp_path: Path, name: str, labels: Sequence[str], xs: Sequence[str] = ()) -> Path:
    xs = xs or [f"{i}.5" for i in range(len(labels))]
    rows = "".join(f"{x},{label}\n" for x, label in zip(xs, labels, strict=True))
    (tmp_path / name).write_text(f"x,y\n{rows}")
    return tmp_path / name


def parquet_of(tmp_path: Path, name: str, labels: Sequence[Any]) -> Path:
    xs = [i + 0.5 for i in range(len(labels))]
    pq.write_table(pa.table({"x": xs, "y": list(labels)}), tmp_path / name)
    return tmp_path / name


def prepared(
    tmp_path: Path, *files: Path, kind: Kind = "class", test: Sequence[Path] = ()
) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    options = PrepareOptions(label=("y",), label_kind=kind, test_sources=tuple(map(str, test)))
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    return prepare(files, out, options=options, on_message=said.append), said


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["0", "2", "10"], (0, 2, 10)),
        (["0.0", "2.0", "1.00"], (0, 1, 2)),
        (["true", "false"], (False, True)),
        (["TRUE", "False"], (False, True)),
        (["0", "1"], (0, 1)),
        (["red", "7"], ("7", "red")),
        (["NA", "red"], ("NA", "red")),
        # What two texts would be one, or lose a character, stays text.
        (["007", "7"], ("007", "7")),
        (["007", "008"], ("007", "008")),
        (["1.0", "1", "2"], ("1", "1.0", "2")),
        (["1e5", "100000"], ("100000", "1e5")),
        (["1e5", "2e5"], ("1e5", "2e5")),
        (["+1", "-1"], ("+1", "-1")),
        (["+1", "1"], ("+1", "1")),
        (["-0", "0"], ("-0", "0")),
        (["0x1F", "31"], ("0x1F", "31")),
        (["True", "true", "False"], ("False", "True", "true")),
        (["0", "false", "true"], ("0", "false", "true")),
        (["12345678901234567890", "12345678901234567891"],) * 2,
        (["9007199254740993", "9007199254740992.0"], (9007199254740992, 9007199254740993)),
    ],
)
def test_no_two_texts_become_one_class(
    tmp_path: Path, labels: list[str], names: Sequence[Any]
) -> None:
    manifest, _ = prepared(tmp_path, csv_of(tmp_path, "rows.csv", labels))
    assert manifest.class_names == tuple(names)
    assert [type(name) for name in manifest.class_names] == [type(name) for name in names]


def test_that_texts_of_one_value_are_two_classes_is_said(tmp_path: Path) -> None:
    _, said = prepared(tmp_path, csv_of(tmp_path, "rows.csv", ["1.0", "1", "2"]))
    (text,) = said
    assert "'1' and '1.0'" in text
    assert "two classes" in text


@pytest.mark.parametrize(
    ("first", "second", "names", "num_said"),
    [
        (["0", "1"], ["0.0", "1.0"], (0, 1), 2),
        (["0", "1"], ["2", "3"], (0, 1, 2, 3), 0),
        (["True", "False"], ["true", "false"], (False, True), 2),
        (["01", "02"], ["1", "2"], ("01", "02", "1", "2"), 0),
        (["1", "2"], ["red", "2"], ("1", "2", "red"), 0),
        (["0", "1"], ["1", "1.0"], ("0", "1", "1.0"), 1),
    ],
)
def test_labels_are_typed_over_all_files(
    tmp_path: Path, first: list[str], second: list[str], names: Any, num_said: int
) -> None:
    one, two = csv_of(tmp_path, "a.csv", first), csv_of(tmp_path, "b.csv", second)
    for files in ((one, two), (two, one)):
        manifest, said = prepared(tmp_path, *files)
        assert manifest.class_names == names
        assert len(said) == num_said


def test_a_test_file_takes_part_in_the_typing(tmp_path: Path) -> None:
    train = csv_of(tmp_path, "a.csv", ["7", "8"], ["1", "2"])
    test = csv_of(tmp_path, "b.csv", ["7", "8"], ["1.5", "2.5"])
    assert prepared(tmp_path, train, test=[test])[0].class_names == (7, 8)
    test = csv_of(tmp_path, "b.csv", ["07", "8"])
    with pytest.raises(DataError, match=r"row 0: class '07' is in held-out rows only"):
        prepared(tmp_path, train, test=[test])


@pytest.mark.parametrize("second", [["1.5", "2e-3"], ["3", "4"], ["-0", "-0.0"], ["1.", ".5"]])
def test_files_differ_in_how_their_numbers_are_written(tmp_path: Path, second: list[str]) -> None:
    one = csv_of(tmp_path, "a.csv", ["0", "1"], ["1", "2"])
    two = csv_of(tmp_path, "b.csv", ["0", "1"], second)
    header = tmp_path / "c.csv"
    header.write_text("x,y\n")
    for files in ((one, two, header), (header, two, one)):
        mean = prepared(tmp_path, *files)[0].statistics.mean[0]
        assert mean == pytest.approx((3 + sum(map(float, second))) / 4, rel=1e-15)


@pytest.mark.parametrize(
    "cell",
    ["?", "None", "#N/A", "Total", "-", '"1,5"', "1_000", "12:30", "0x1F", "007", "+49151123456"],
)
def test_a_feature_that_is_no_number_is_named_by_row_line_and_value(
    tmp_path: Path, cell: str
) -> None:
    good = csv_of(tmp_path, "a.csv", ["0", "1"])
    bad = csv_of(tmp_path, "b.csv", ["0", "1", "0"], ["1", "2.5", cell])
    text = cell.strip('"')
    for files in ((good, bad), (bad, good), (bad,)):
        with pytest.raises(DataError) as caught:
            prepared(tmp_path, *files)
        assert f"column 'x', row 2 (line 4): feature '{text}'" in str(caught.value)
        assert caught.value.path == str(bad)
    (column,) = (column for column in check(tmp_path / "*.csv").columns if column.name == "x")
    assert column.kind == "text"
    assert column.first_text is not None
    assert column.first_text.startswith(f"row 2: '{text}' ")


def test_a_cell_far_down_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distsgd.data.sources.csv_text.BLOCK_BYTES", 64)
    path = csv_of(tmp_path, "a.csv", ["0"] * 900, ["1.5"] * 700 + ["?"] + ["2"] * 199)
    with pytest.raises(DataError, match=r"row 700 \(line 702\): feature '\?' is no number"):
        prepared(tmp_path, path)


def test_a_number_label_that_is_none_is_named_by_row_and_value(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "a.csv", ["0.5", "oops"])
    with pytest.raises(DataError, match=r"row 1 \(line 3\): label 'oops' is no number"):
        prepared(tmp_path, path, kind="number")


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["0", "1"], "class", (0, 1)),
        (["true", "false"], "class", (False, True)),
        (["0.0", "1.0"], "number", ()),
        (["0.5", "1"], "number", ()),
        (["07", "8"], "class", ("07", "8")),
    ],
)
def test_auto_takes_what_is_whole_or_text_as_classes(
    tmp_path: Path, labels: list[str], kind: str, names: Any
) -> None:
    manifest, _ = prepared(tmp_path, csv_of(tmp_path, "a.csv", labels), kind="auto")
    assert (manifest.label_kind, manifest.class_names) == (kind, names)


@pytest.mark.parametrize("label", ["0.5", "nan", "inf"])
def test_a_quantity_is_no_class_and_the_way_out_exists(tmp_path: Path, label: str) -> None:
    path = csv_of(tmp_path, "a.csv", ["1", label])
    with pytest.raises(DataError, match=r"column 'y', row [01]: label") as caught:
        prepared(tmp_path, path)
    assert "label kind" not in str(caught.value)


def test_auto_takes_numbers_with_one_bad_cell_as_numbers(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "a.csv", ["0.5", "1", "?"])
    with pytest.raises(DataError, match=r"row 2 \(line 4\): label '\?' is no number"):
        prepared(tmp_path, path, kind="auto")
    assert prepared(tmp_path, path)[0].class_names == ("0.5", "1", "?")


def test_that_two_texts_are_one_class_of_the_other_sources_is_said(tmp_path: Path) -> None:
    files = parquet_of(tmp_path, "a.parquet", [0, 1]), csv_of(tmp_path, "b.csv", ["1", "1.0"])
    manifest, said = prepared(tmp_path, *files)
    assert manifest.class_names == (0, 1)
    assert "'1' and '1.0'" in said[0]
    assert "read as one class" in said[0]


def test_columns_in_another_order_and_others_beside_named_features(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n")
    (tmp_path / "b.csv").write_text("y,note,x\n0,t,3\n1,u,6\n")
    options = PrepareOptions(label=("y",), features=("x",))
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert prepare(files, tmp_path / "out", options=options).statistics.mean == (3.0,)


def test_the_settings_of_training_stay_with_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("x|y\n1,5|é\n2,5|ü\n".encode("latin-1"))
    csv = CsvSettings("|", "latin-1", ",", ("?",))
    options = PrepareOptions(label=("y",), csv=csv)
    manifest = prepare(path, tmp_path / "out", options=options)
    assert manifest.csv == csv
    [(x_NI, target, _)] = read_features(path, manifest)
    assert x_NI.tolist() == [[1.5], [2.5]]
    assert target is not None
    assert (manifest.class_names, target.tolist()) == (("é", "ü"), [0, 1])
    path.write_bytes("x|y\n1.5|é\n2,5|ü\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"'1\.5' is no number; .* for a decimal point .*decimal="):
        list(read_features(path, manifest))


def test_files_in_directories_of_partitions_are_typed_as_one(tmp_path: Path) -> None:
    for day, labels, xs in ((3, ["0", "1"], ["1", "2"]), (4, ["0.0", "1.0"], ["1.5", "2.5"])):
        (tmp_path / f"d/day={day}").mkdir(parents=True)
        csv_of(tmp_path / f"d/day={day}", "a.csv", labels, xs)
    options = PrepareOptions(label=("y",), label_kind="class")
    manifest = prepare(str(tmp_path / "d/*/*.csv"), tmp_path / "out", options=options)
    assert (manifest.columns, manifest.class_names) == (("x", "day"), (0, 1))
    csv_of(tmp_path / "d/day=4", "a.csv", ["0", "1"], ["1.5", "?"])
    with pytest.raises(DataError, match=r"day=4/a.csv: column 'x', row 1 \(line 3\): feature '\?'"):
        prepare(str(tmp_path / "d/*/*.csv"), tmp_path / "other", options=options)


def test_numbers_of_csv_and_parquet_are_one_kind(tmp_path: Path) -> None:
    one = parquet_of(tmp_path, "a.parquet", [0.5, 1.5])
    two = csv_of(tmp_path, "b.csv", ["0", "1"], ["1", "2"])
    for files in ((one, two), (two, one)):
        assert prepared(tmp_path, *files, kind="number")[0].statistics.mean == (1.25,)
