"""Integer features: kept exactly, counted, and refused by name where they are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.check import check
from distsgd.data.dataset import DataSet
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.data.tables import MemorySource, arrays_source
from distsgd.errors import ConfigError, DataError

X = np.arange(24).reshape(6, 4) % 7
Y = [0, 1, 0, 1, 0, 1]


def options(**given: Any) -> PrepareOptions:
    return PrepareOptions(**{"label": ("label",), "feature_kind": "integer"} | given)


def features(data: DataSet) -> np.ndarray[Any, Any]:
    """Those of all rows, training rows first."""
    parts = []
    for rows in (data.train, data.test):
        x_NI = np.empty((rows.num_rows, data.manifest.num_features), data.manifest.dtype)
        target = data.manifest.empty_targets(rows.num_rows)
        rows.gather_range_inplace(0, rows.num_rows, x_NI=x_NI, target=target, squared_norms_N=None)
        order = np.argsort(rows.source_rows(np.arange(rows.num_rows)))
        parts.append(x_NI[order])
    return np.concatenate(parts)


def test_integers_are_stored_as_they_are_and_counted(tmp_path: Path) -> None:
    manifest = prepare(arrays_source(X, np.array(Y)), tmp_path / "data", options=options())
    data = DataSet.open(tmp_path / "data")
    assert (manifest.feature_kind, manifest.standardise, manifest.num_levels) == (
        "integer",
        "none",
        7,
    )
    assert features(data).dtype == np.float32
    assert np.array_equal(features(data), X)
    assert read_manifest(tmp_path / "data") == manifest
    assert check(tmp_path / "data").problems == ()


def test_numbers_have_no_levels(tmp_path: Path) -> None:
    source = arrays_source(X, np.array(Y))
    manifest = prepare(source, tmp_path / "data", options=options(feature_kind="number"))
    assert (manifest.feature_kind, manifest.num_levels) == ("number", None)


@settings(max_examples=20, deadline=None)
@given(
    tokens=st.lists(st.lists(st.integers(0, 2**24 - 1), min_size=3, max_size=3), min_size=2),
    kind=st.sampled_from(
        [pa.list_(pa.int32()), pa.large_list(pa.uint64()), pa.list_(pa.int64(), 3)]
    ),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_tokens_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[list[int]], kind: Any, dtype: Any
) -> None:
    out = tmp_path_factory.mktemp("tokens") / "data"
    table = pa.table({"tokens": pa.array(tokens, kind), "label": [0] * len(tokens)})
    manifest = prepare(MemorySource(table), out, options=options(dtype=dtype))
    assert np.array_equal(features(DataSet.open(out)), tokens)
    assert manifest.num_levels == np.max(tokens) + 1
    [(x_NI, _, _)] = read_features(MemorySource(table), manifest)
    assert np.array_equal(x_NI, tokens)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2, -3]}, "column 'a', row 2: -3 must be an integer of 0 or more"),
        ({"a": [1.0, 2.5, 3.0]}, "column 'a', row 1: 2.5 must be an integer of 0 or more"),
        ({"a": [1, None, 3]}, "column 'a', row 1: null feature"),
        ({"t": [[1, 2], [3, -1], [5, 6]]}, r"column 't\[1\]', row 1: -1 must be an integer"),
        ({"t": [[1, 2], [3, None], [5, 6]]}, "column 't', row 1: null in the list"),
        ({"a": [1, 2**24, 3]}, 'must be below 16777216.*set \\[train\\] dtype to "float64"'),
        ({"a": [1, 2**53 + 1, 3]}, "must be below 16777216, from where on float32"),
    ],
)
def test_what_is_no_integer_is_refused_by_name(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    source = MemorySource(pa.table(columns | {"label": [0, 1, 0]}))
    with pytest.raises(DataError, match=message):
        prepare(source, tmp_path / "data", options=options())
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2**24 - 1), ("float64", 2**53 - 1)])
def test_the_largest_integer_of_a_dtype_is_taken_and_the_next_refused(
    tmp_path: Path, dtype: Any, most: int
) -> None:
    def table(value: int) -> MemorySource:
        return MemorySource(pa.table({"a": [value, 0], "label": [0, 1]}))

    manifest = prepare(table(most), tmp_path / "data", options=options(dtype=dtype))
    assert manifest.num_levels == most + 1
    with pytest.raises(DataError, match=f"row 0: {most + 1} must be below {most + 1}"):
        prepare(table(most + 1), tmp_path / "other", options=options(dtype=dtype))


def test_a_held_out_integer_above_all_of_training_is_refused(tmp_path: Path) -> None:
    def file(name: str, values: list[int]) -> str:
        path = tmp_path / name
        path.write_text(
            "a,label\n" + "".join(f"{value},{i % 2}\n" for i, value in enumerate(values))
        )
        return str(path)

    train, test = file("train.csv", [3, 1, 2]), file("test.csv", [3, 9, 9, 4])
    with pytest.raises(DataError) as caught:
        prepare(train, tmp_path / "data", options=options(test_sources=(test,)))
    assert str(caught.value) == (
        f"{test}: column 'a', row 1: 9 is in held-out rows only; must be at most 3, the highest "
        "integer of the training rows (give such a one training rows, or put a known one in its "
        "place)"
    )
    known = file("known.csv", [3, 0])
    made = prepare(train, tmp_path / "data", options=options(test_sources=(known,)))
    assert made.num_levels == 4


def test_a_new_row_with_an_unknown_integer_is_refused(tmp_path: Path) -> None:
    manifest = prepare(arrays_source(X, np.array(Y)), tmp_path / "data", options=options())
    new = X.copy()
    new[4, 2] = 7
    table = pa.table({"x": pa.array(new.tolist())})
    with pytest.raises(DataError, match=r"column 'x\[2\]', row 4: 7 is unknown; must be at most 6"):
        list(read_features(MemorySource(table), manifest))
    fractional = pa.table({"x": pa.array((X + 0.5).tolist())})
    with pytest.raises(DataError, match=r"column 'x\[0\]', row 0: 0.5 must be an integer"):
        list(read_features(MemorySource(fractional), manifest))


def test_integers_are_never_standardised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="standardise is 'min_max' with feature_kind \"integer\""):
        prepare(
            arrays_source(X, np.array(Y)), tmp_path / "d", options=options(standardise="min_max")
        )


def test_levels_of_an_idx_file_are_counted(tmp_path: Path) -> None:
    head = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (6, 2, 2))
    (tmp_path / "images-idx3-ubyte").write_bytes(head + X.astype(np.uint8).tobytes())
    head = b"\0\0\x08\x01" + (6).to_bytes(4, "big")
    (tmp_path / "labels-idx1-ubyte").write_bytes(head + bytes(Y))
    manifest = prepare(tmp_path / "images-idx3-ubyte", tmp_path / "data", options=options())
    assert (manifest.num_levels, manifest.num_features) == (7, 4)
