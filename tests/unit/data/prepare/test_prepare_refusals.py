"""What `prepare` refuses: it is named, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import MemorySource, arrays_source
from distsgd.errors import ConfigError, DataError
from tests.unit.data.prepare.test_prepare import LABEL, A, Write, Y

BAD = {
    "has no label column 'label'": {"a": A},
    "has no feature columns": {"label": Y},
    "feature column 'a' is text": {"a": ["x", "y", "z"], "label": Y},
    "column 'a', row 1: null feature": {"a": [1, None, 3], "label": Y},
    "column 'a', row 1: nan is not a finite": {"a": [1, float("nan"), 3], "label": Y},
    "column 'a', row 2: -inf is not a finite": {"a": [1, 2, float("-inf")], "label": Y},
    "column 'label', row 1: null label": {"a": A, "label": ["u", None, "v"]},
    "column 'x', row 1: list of 1 values; must be 2": {"x": [[1, 2], [1], [2, 3]], "label": Y},
    "column 'x', row 2: null feature list": {"x": [[1, 2], [1, 2], None], "label": Y},
    "column 'x', row 1: null in the list": {"x": [[1, 2], [1, None], [1, 2]], "label": Y},
    "column 'x[1]', row 2: nan": {"x": [[1, 2], [1, 2], [2, float("nan")]], "label": Y},
    "1e+300 is too large": {"a": [1, 1e300, 2], "label": Y},
    "column 'a', row 1: 1e+39 does not fit float32": {"a": [1, 1e39, 2], "label": Y},
    "squared length does not fit float32": {"a": [1, 1e30, 2], "label": Y},
    "column 'label', row 1: 1e+39 does not fit": {"a": A, "label": [0.5, 1e39, 2]},
    "column 'label', row 1: label nan": {"a": A, "label": [0.5, float("nan"), 2]},
    "column 'a' more than once": pa.table([A, A, Y], names=["a", "a", "label"]),
    "type struct": {"a": [{"q": 1}] * 3, "label": Y},
    "only nulls": {"a": pa.nulls(3), "label": Y},
    "is a list among other features": {"x": [[1, 2]] * 3, "b": A, "label": Y},
    "has lists of list": {"x": [[[1]]] * 3, "label": Y},
    "has no rows": {"a": pa.array([], pa.float64()), "label": pa.array([], pa.int64())},
    "label column 'label' has type binary": {"a": A, "label": [b"u", b"v", b"u"]},
}


@pytest.mark.parametrize("message", BAD)
def test_prepare_names_what_it_cannot_use_and_leaves_nothing(
    tmp_path: Path, write: Write, message: str
) -> None:
    path = write(BAD[message])
    with pytest.raises(DataError) as caught:
        prepare(path, tmp_path / "out", options=LABEL)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


def test_prepare_finds_a_null_that_hides_in_a_dictionary(tmp_path: Path) -> None:
    labels = pa.DictionaryArray.from_arrays([0, 1, 2], ["u", "v", None])
    with pytest.raises(DataError, match="column 'label', row 2: null label"):
        prepare(MemorySource(pa.table({"a": A, "label": labels})), tmp_path / "o", options=LABEL)


def test_prepare_refuses_fractional_classes(tmp_path: Path) -> None:
    options = PrepareOptions(label=("label",), label_kind="class")
    with pytest.raises(DataError, match=r"row 1: label 1\.5 is no class"):
        prepare(arrays_source(np.eye(3), np.array([0, 1.5, 2])), tmp_path / "o", options=options)


def test_prepare_refuses_a_class_only_held_out_rows_have(tmp_path: Path) -> None:
    options = PrepareOptions(label=("label",), test_fraction=0.5)
    with pytest.raises(DataError, match=r"row \d+: class \d+ is in held-out rows only"):
        prepare(arrays_source(np.eye(30), np.arange(30)), tmp_path / "o", options=options)


@pytest.mark.parametrize(
    ("num_rows", "fraction", "message"),
    [
        (4, 0.1, r"0\.1 of 4 rows is 0 rows, and none is left to test on; raise it .*0\.25"),
        (4, 0.9, r"0\.9 of 4 rows is 4 rows, and none is left to train on; lower it"),
        (1, 0.5, r"0\.5 of 1 rows is 1 rows, and none is left to train on"),
        (2, 0.2, "is 0 rows"),
    ],
)
@pytest.mark.parametrize("stratify", [False, True])
def test_prepare_refuses_a_split_without_test_or_training_rows(
    tmp_path: Path, *, stratify: bool, num_rows: int, fraction: float, message: str
) -> None:
    options = PrepareOptions(label=("label",), test_fraction=fraction, stratify=stratify)
    with pytest.raises(DataError, match=message):
        prepare(
            arrays_source(np.eye(num_rows), np.ones(num_rows, int)), tmp_path / "o", options=options
        )
    assert not list(tmp_path.iterdir())


def test_prepare_refuses_to_stratify_what_cannot_be(tmp_path: Path) -> None:
    options = PrepareOptions(label=("label",), test_fraction=0.5, stratify=True)
    with pytest.raises(DataError, match=r"last rows of.*classes 0 \(1\), 1 \(1\).* and 5 more"):
        prepare(arrays_source(np.eye(10), np.arange(10)), tmp_path / "o", options=options)
    with pytest.raises(DataError, match=r"'label' holds numbers, and only classes can be"):
        prepare(arrays_source(np.eye(4), np.arange(4) / 2), tmp_path / "o", options=options)
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0], "label": [1, None, 0, 1]})
    with pytest.raises(DataError, match="row 1: null label"):
        prepare(MemorySource(table), tmp_path / "o", options=options)
    with pytest.raises(ConfigError, match="stratify is True and test_fraction 0"):
        prepare(
            MemorySource(table), tmp_path / "o", options=PrepareOptions(("label",), stratify=True)
        )
    assert not list(tmp_path.iterdir())


class _Short(MemorySource):
    """Says that it has a row more than it gives."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table)
        self.num_rows += 1


def test_prepare_refuses_a_source_that_gives_other_rows_than_it_says(tmp_path: Path) -> None:
    source = _Short(pa.table({"a": [1.0, 2.0, 3.0], "label": [0, 1, 0]}))
    options = PrepareOptions(label=("label",), test_fraction=0.5)
    with pytest.raises(DataError, match="has 3 rows and says 4"):
        prepare(source, tmp_path / "out", options=options)


def test_prepare_names_file_and_row_across_files(tmp_path: Path, write: Write) -> None:
    paths = [
        write({"a": [1.0] * 5, "label": [0] * 5}, "one.parquet"),
        write({"a": [1.0, 1e39], "label": [0, 0]}, "two.parquet"),
    ]
    with pytest.raises(DataError, match=r"two\.parquet: column 'a', row 1: 1e\+39"):
        prepare(paths, tmp_path / "out", options=LABEL)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": [1.0], "b": [1.0], "label": [0]}, "has column 'b', which"),
        ({"label": [0]}, "lacks column 'a'"),
        ({"a": ["1"], "label": [0]}, "feature column 'a' is text; must be numbers"),
        ({"a": [1.0], "label": ["0"]}, "column 'label' has type string, but int64"),
    ],
)
def test_prepare_refuses_files_of_different_schemas(
    tmp_path: Path, write: Write, second: dict[str, list[object]], message: str
) -> None:
    paths = [write({"a": A, "label": Y}, "one.parquet"), write(second, "two.parquet")]
    with pytest.raises(DataError) as caught:
        prepare(paths, tmp_path / "out", options=LABEL)
    assert message in str(caught.value)


def test_prepare_refuses_a_label_that_is_a_feature(tmp_path: Path, write: Write) -> None:
    options = PrepareOptions(label=("label",), features=("a", "label"))
    with pytest.raises(DataError, match="both label and feature"):
        prepare(write({"a": A, "label": Y}), tmp_path / "out", options=options)


def test_prepare_refuses_a_directory_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not empty"):
        prepare(arrays_source(np.eye(2), np.zeros(2)), tmp_path, options=LABEL)


def test_prepare_lists_every_impossible_option(tmp_path: Path) -> None:
    options = PrepareOptions(label=(), test_fraction=1.0, shards=0, split_seed=-1)
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path / "none", tmp_path / "out", options=options)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("field", PrepareOptions.__dataclass_fields__)
@pytest.mark.parametrize("value", [None, object(), [], {}, "x", b"x", (1,), -1, float("nan")])
def test_prepare_refuses_options_of_any_other_type(
    tmp_path: Path, field: str, value: object
) -> None:
    takes: dict[str, list[object]] = {
        "label": [],
        "features": [],
        "test_sources": [[]],
        "test_fraction": [],
        "shards": [],
        "target_shape": [None, (1,)],
    }
    if value in takes.get(field, []):
        return
    options = PrepareOptions(**{"label": ("label",), field: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=field):
        prepare(arrays_source(np.eye(2), np.zeros(2)), tmp_path / "out", options=options)


@pytest.mark.parametrize("columns", [{"a": [], "label": []}, {}])
def test_prepare_refuses_test_files_without_rows(
    tmp_path: Path, write: Write, columns: dict[str, list[int]]
) -> None:
    train, test = write({"a": A, "label": Y}), write(columns, "empty.parquet")
    options = PrepareOptions(label=("label",), test_sources=(str(test),))
    with pytest.raises(DataError, match="has no rows to test on; name test files with some"):
        prepare(train, tmp_path / "out", options=options)
    # Beside others it hinders nothing.
    filled = write({"a": A, "label": Y}, "filled.parquet")
    both = PrepareOptions(label=("label",), test_sources=(str(test), str(filled)))
    assert prepare(train, tmp_path / "out", options=both).test_rows == 3
