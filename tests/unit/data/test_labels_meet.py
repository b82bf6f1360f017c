"""Labels of evaluation, prediction and other files meet the classes, however they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.data.manifest import Manifest
from distsgd.data.prepare.prepare import read_features
from distsgd.errors import DataError
from tests.unit.data.prepare.test_csv_types import csv_of, parquet_of, prepared

FORMS: dict[str, list[Any]] = {
    "integers": [0, 1],
    "booleans": [False, True],
    "floats": [0.0, 1.0],
    "text": ["0", "1"],
    "text with decimals": ["0.0", "1.0"],
    "text of booleans": ["False", "True"],
}
WRITTEN = {
    "0,1": ["0", "1"],
    "0.0,1.0": ["0.0", "1.0"],
    "true": ["false", "true"],
    "True": ["False", "True"],
}


def targets(source: Path, manifest: Manifest) -> list[Any]:
    return [
        code
        for _, target, _ in read_features(source, manifest, labels="required")
        if target is not None
        for code in target.tolist()
    ]


@pytest.mark.parametrize("trained", [*FORMS, *WRITTEN])
@pytest.mark.parametrize("measured", [*FORMS, *WRITTEN])
def test_labels_meet_whatever_they_are_written_in(
    tmp_path: Path, trained: str, measured: str
) -> None:
    def file(form: str, name: str) -> Path:
        if form in FORMS:
            return parquet_of(tmp_path, f"{name}.parquet", FORMS[form])
        return csv_of(tmp_path, f"{name}.csv", WRITTEN[form])

    manifest, _ = prepared(tmp_path, file(trained, "train"))
    assert targets(file(measured, "test"), manifest) == [0, 1]


@pytest.mark.parametrize(
    ("trained", "label", "known"),
    [
        ([3, 7], "8", "3, 7"),
        ([3, 7], "07", "3, 7"),
        ([3, 7], "7.5", "3, 7"),
        ([3, 7], "red", "3, 7"),
        ([3, 7], "NA", "3, 7"),
        ([0, 1, 2], "true", "0, 1, 2"),
        (["a", "b"], "A", "'a', 'b'"),
        (["007", "008"], "7", "'007', '008'"),
        (["1", "1.0"], "1.00", "'1', '1.0'"),
        ([True, False], "2", "False, True"),
        ([True, False], "yes", "False, True"),
    ],
)
def test_what_does_not_fit_is_named_with_the_known_classes(
    tmp_path: Path, trained: list[Any], label: str, known: str
) -> None:
    manifest, _ = prepared(tmp_path, parquet_of(tmp_path, "train.parquet", trained))
    first = str(trained[0])
    for source in (
        csv_of(tmp_path, "test.csv", [first, label]),
        parquet_of(tmp_path, "test.parquet", [first, label]),
    ):
        with pytest.raises(DataError) as caught:
            targets(source, manifest)
        expected = f"row 1: label '{label}' is none of the classes of training ({known})"
        assert expected in str(caught.value)


@pytest.mark.parametrize("value", [2, 0.5, True])
def test_a_parquet_value_that_does_not_fit_is_refused(tmp_path: Path, value: Any) -> None:
    manifest, _ = prepared(tmp_path, parquet_of(tmp_path, "train.parquet", ["a", "b", "7"]))
    with pytest.raises(DataError, match=r"row 0: label .* is none of the classes of training"):
        targets(parquet_of(tmp_path, "test.parquet", [value]), manifest)


def test_codes_stay_codes_at_evaluation(tmp_path: Path) -> None:
    manifest, _ = prepared(tmp_path, csv_of(tmp_path, "train.csv", ["007", "7", "8"]))
    assert targets(csv_of(tmp_path, "test.csv", ["8", "7"]), manifest) == [2, 1]


@pytest.mark.parametrize(
    ("others", "labels", "names"),
    [
        ([0, 1], ["0", "1.0"], (0, 1)),
        (["0", "1"], ["0", "1"], ("0", "1")),
        ([True, False], ["1", "false"], (False, True)),
    ],
)
def test_a_csv_file_takes_the_label_type_of_the_other_sources(
    tmp_path: Path, others: list[Any], labels: list[str], names: Any
) -> None:
    one, two = parquet_of(tmp_path, "a.parquet", others), csv_of(tmp_path, "b.csv", labels)
    for files in ((one, two), (two, one)):
        assert prepared(tmp_path, *files)[0].class_names == names
    assert prepared(tmp_path, one, test=[two])[0].class_names == names


@pytest.mark.parametrize(("others", "label"), [([0, 1], "red"), ([0, 1], "01"), ([True], "yes")])
def test_a_csv_label_that_the_other_sources_cannot_have_is_named(
    tmp_path: Path, others: list[Any], label: str
) -> None:
    one, two = parquet_of(tmp_path, "a.parquet", others), csv_of(tmp_path, "b.csv", ["1", label])
    with pytest.raises(DataError, match=rf"row 1 \(line 3\): label '{label}' is not"):
        prepared(tmp_path, one, two)


def test_a_text_label_in_parquet_is_no_number_at_evaluation(tmp_path: Path) -> None:
    manifest, _ = prepared(tmp_path, csv_of(tmp_path, "a.csv", ["0.5", "1"]), kind="number")
    with pytest.raises(DataError, match="label column 'y' is text"):
        targets(parquet_of(tmp_path, "b.parquet", ["0.5", "1"]), manifest)
    assert targets(csv_of(tmp_path, "b.csv", ["7", "8"]), manifest) == [[7.0], [8.0]]


def test_labels_beyond_int64_meet_their_text(tmp_path: Path) -> None:
    large = [(1 << 63) + 5, (1 << 64) - 1]
    text, path = csv_of(tmp_path, "a.csv", list(map(str, large))), tmp_path / "b.parquet"
    pq.write_table(pa.table({"x": [0.5, 1.5], "y": pa.array(large, pa.uint64())}), path)
    for trained, measured in ((text, path), (path, text)):
        manifest, _ = prepared(tmp_path, trained)
        found = targets(measured, manifest)
        assert [int(manifest.class_names[code]) for code in found] == large
