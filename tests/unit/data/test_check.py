from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distsgd.data.check import check
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import arrays_source

Write = Callable[..., Path]
UNSUPPORTED = "is not supported; leave it out of the features"


def test_check_describes_a_good_file(write: Write) -> None:
    path = write({"a": [1, 5, 3], "x": [[1.0, 9.0]] * 3, "name": ["u", "v", "u"]})
    report = check(path)
    assert not report.problems
    assert not report.is_prepared
    assert report.num_rows == 3
    kinds = [
        (column.name, column.kind, column.minimum, column.maximum) for column in report.columns
    ]
    assert kinds == [("a", "number", 1, 5), ("x", "list", 1, 9), ("name", "text", None, None)]


def test_check_names_the_first_row_of_every_problem(write: Write) -> None:
    path = write(
        {
            "a": [1.0, None, float("nan")],
            "x": [[1], [1, 2], [3]],
            "s": [{"q": 1}] * 3,
            "big": [0, 0, 1e200],
        }
    )
    report = check(path)
    assert [problem.partition(": ")[2] for problem in report.problems] == [
        "column 'a', row 1: a null",
        "column 'a', row 2: not a finite number",
        "column 'x', row 1: a list that is not of length 1 as the first",
        f"column 's' has type struct<q: int64>, which {UNSUPPORTED}",
        "column 'big', row 2: larger than 1e+145",
    ]


def test_check_reports_files_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"hello")
    assert "is not a Parquet file" in check(tmp_path / "rows.parquet").problems[0]
    assert "no such file" in check(tmp_path / "none").problems[0]
    assert "no prepared data set" in check(tmp_path).problems[0]


@pytest.mark.parametrize("label_kind", ["class", "number"])
def test_check_verifies_a_prepared_directory(tmp_path: Path, label_kind: str) -> None:
    options = PrepareOptions(
        label=("label",),
        label_kind=label_kind,  # type: ignore[arg-type]
        test_fraction=0.3,
        standardise="mean_std",
    )
    x = np.random.default_rng(0).normal(size=(100, 4))
    prepare(arrays_source(x, np.arange(100) % 2), tmp_path / "data", options=options)
    report = check(tmp_path / "data")
    assert not report.problems
    assert report.is_prepared
    assert report.num_rows == 100
    shard = tmp_path / "data" / "test-00000.arrow"
    shard.write_bytes(shard.read_bytes()[::-1])
    assert "test-00000.arrow" in check(tmp_path / "data").problems[0]
