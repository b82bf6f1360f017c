"""Numbers of any width and lists of any form are one kind; the bits do not depend on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.data.check import check
from distsgd.data.manifest import Manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.data.tables import MemorySource, kind_of, numbers
from distsgd.errors import DataError

Write = Callable[..., Path]
OPTIONS = PrepareOptions(("label",), label_kind="class", standardise="mean_std", dtype="float64")
VALUES = [3, 0, 1, 1, 0, 2]
FLAT = [1.0, 2.0, 0.0, 3.0, 4.0, 0.5, 1.5, 2.5, 3.5, 8.0, 9.0, 7.0]


def plain(kind: pa.DataType, values: list[Any] = VALUES) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array([Decimal(value) for value in values], kind)
    return pa.array(values, pa.int64()).cast(kind)


NUMBERS = {
    **{str(kind): plain(kind) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.uint64())},
    **{str(kind): plain(kind) for kind in (pa.float16(), pa.float32(), pa.float64())},
    "decimal(10, 2)": plain(pa.decimal128(10, 2)),
    "decimal(40, 9)": plain(pa.decimal256(40, 9)),
    "decimal32": plain(pa.decimal32(9, 4)),
    "dictionary": plain(pa.int64()).dictionary_encode(),
    "dictionary of floats": plain(pa.float64()).dictionary_encode(),
    "dictionary of decimals": plain(pa.decimal128(10, 2)).dictionary_encode(),
}


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """Each with the first, both ways, and each with the next."""
    first, *others = names
    both_ways = [*itertools.product([first], others), *itertools.product(others, [first])]
    return [*both_ways, *itertools.pairwise(others)]


def lists(kind: pa.DataType) -> pa.Array:
    return pa.array([[FLAT[2 * i], FLAT[2 * i + 1]] for i in range(6)], kind)


def tensors() -> pa.Array:
    storage = pa.FixedSizeListArray.from_arrays(pa.array(FLAT), 2)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float64(), [2]), storage)


LISTS = {
    "list of double": lists(pa.list_(pa.float64())),
    "list of float": lists(pa.list_(pa.float32())),
    "list of half": lists(pa.list_(pa.float16())),
    "large list": lists(pa.large_list(pa.float64())),
    "fixed-size list": lists(pa.list_(pa.float32(), 2)),
    "list view": lists(pa.list_view(pa.float64())),
    "large list view": lists(pa.large_list_view(pa.float32())),
    "tensor": tensors(),
}


def whole(features: pa.Array, label: pa.Array | None = None) -> pa.Table:
    names = plain(pa.int64(), [0, 1, 0, 1, 0, 1])
    return pa.table({"x": features, "label": names if label is None else label})


def prepared(out: Path, *tables: pa.Table, options: PrepareOptions = OPTIONS) -> Manifest:
    place = out.parent / f"{out.name}-files"
    place.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, place / f"p{number}.parquet")
    return prepare(str(place / "*.parquet"), out, options=options)


@pytest.mark.parametrize("stored", [NUMBERS, LISTS])
def test_every_width_and_form_of_equal_numbers_gives_the_same_bits(
    tmp_path: Path, stored: dict[str, pa.Array]
) -> None:
    digests = {
        name: prepared(tmp_path / f"out{number}", whole(values)).digest
        for number, (name, values) in enumerate(stored.items())
    }
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize(("one", "other"), pairs(list(NUMBERS)))
def test_files_of_one_source_may_store_numbers_otherwise(
    tmp_path: Path, one: str, other: str
) -> None:
    tables = [whole(NUMBERS[one]), whole(NUMBERS[other])]
    manifest = prepared(tmp_path / "out", *tables)
    double = whole(NUMBERS["double"])
    assert manifest.digest == prepared(tmp_path / "same", double, double).digest
    [(x_NI, target, _)] = read_features(str(tmp_path / "out-files" / "p1.parquet"), manifest)
    assert (x_NI[:, 0] == (np.array(VALUES) - manifest.shift) / manifest.scale).all()
    assert target is not None
    report = check(str(tmp_path / "out-files" / "*.parquet"))
    assert not report.problems
    assert [column.kind for column in report.columns] == ["number", "number"]


@pytest.mark.parametrize(("one", "other"), pairs(list(LISTS)))
def test_files_of_one_source_may_store_lists_otherwise(
    tmp_path: Path, one: str, other: str
) -> None:
    manifest = prepared(tmp_path / "out", whole(LISTS[one]), whole(LISTS[other]))
    double = whole(LISTS["list of double"])
    assert manifest.digest == prepared(tmp_path / "same", double, double).digest
    assert len(list(read_features(str(tmp_path / "out-files" / "p1.parquet"), manifest))) == 1
    report = check(str(tmp_path / "out-files" / "*.parquet"))
    assert not report.problems


def test_booleans_are_zero_and_one_beside_numbers(tmp_path: Path) -> None:
    flags = [1, 0, 1, 1, 0, 0]
    byte = pa.ExtensionArray.from_storage(pa.bool8(), pa.array(flags, pa.int8()))
    stored = [plain(pa.bool_(), flags), plain(pa.int64(), flags), byte]
    digests = {
        prepared(tmp_path / f"out{i}{j}", whole(a), whole(b)).digest
        for (i, a), (j, b) in itertools.product(enumerate(stored), repeat=2)
    }
    assert len(digests) == 1


EMPTY = {
    "type null": pa.table({"x": pa.array([], pa.null()), "label": pa.array([], pa.null())}),
    "text": pa.table({"x": pa.array([], pa.string()), "label": pa.array([], pa.float64())}),
    "the same": whole(LISTS["list of double"]).slice(0, 0),
    "no columns": pa.table({}),
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("features", [NUMBERS["float"], LISTS["list of double"]])
def test_a_file_without_rows_hinders_nothing(
    tmp_path: Path, kind: str, place: int, features: pa.Array
) -> None:
    tables = [whole(features), whole(features)]
    tables.insert(place, EMPTY[kind])
    manifest = prepared(tmp_path / "out", *tables)
    assert manifest.digest == prepared(tmp_path / "same", whole(features), whole(features)).digest
    assert not check(str(tmp_path / "out-files" / "*.parquet")).problems
    glob = str(tmp_path / "out-files" / "*.parquet")
    assert sum(len(x_NI) for x_NI, _, _ in read_features(glob, manifest)) == 12


def test_test_files_may_store_numbers_otherwise(tmp_path: Path, write: Write) -> None:
    test = write(whole(NUMBERS["decimal(10, 2)"]), "test.parquet")
    options = PrepareOptions(("label",), label_kind="class", test_sources=(str(test),))
    manifest = prepared(tmp_path / "out", whole(NUMBERS["halffloat"]), options=options)
    assert (manifest.train_rows, manifest.test_rows) == (6, 6)


LABELS = {
    "integers": [plain(pa.int64()), plain(pa.uint8())],
    "integers and floats": [plain(pa.int32()), plain(pa.float64())],
    "floats and integers": [plain(pa.float16()), plain(pa.int64())],
    "decimals": [plain(pa.decimal128(10, 2)), plain(pa.decimal32(9, 0)), plain(pa.int8())],
    "a dictionary": [plain(pa.int8()).dictionary_encode(), plain(pa.int64())],
}


@pytest.mark.parametrize("kind", LABELS)
def test_classes_are_numbers_of_any_width(tmp_path: Path, kind: str) -> None:
    feature = plain(pa.int8())
    manifest = prepared(tmp_path / "out", *(whole(feature, label) for label in LABELS[kind]))
    assert manifest.class_names == (0, 1, 2, 3)
    assert all(type(name) is int for name in manifest.class_names)


def test_booleans_and_integers_are_the_same_two_classes(tmp_path: Path) -> None:
    flags = [1, 0, 1, 1, 0, 0]
    labels = [plain(pa.bool_(), flags), plain(pa.int8(), flags)]
    feature = plain(pa.int8())
    for number, pair in enumerate((labels, labels[::-1])):
        manifest = prepared(tmp_path / f"out{number}", *(whole(feature, label) for label in pair))
        assert manifest.class_names == (0, 1)
        assert [type(name) for name in manifest.class_names] == [int, int]


def test_large_integers_stay_different_classes(tmp_path: Path) -> None:
    large = [2**53, 2**53 + 1, 2**53, 2**53 + 2, 2**53, 2**53 + 1]
    feature = plain(pa.int8())
    manifest = prepared(tmp_path / "out", whole(feature, pa.array(large)))
    assert manifest.class_names == (2**53, 2**53 + 1, 2**53 + 2)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (pa.array([1.0, 2.0**53] * 3), r"row 1: label 9007199254740992 is no class: from 2\^53 on"),
        (pa.array([1.0, 2.0**24] * 3, pa.float32()), r"row 1: label 16777216 is no class"),
        (pa.array([1.0, 2048.0] * 3, pa.float16()), r"row 1: label 2048 is no class: from 2\^11"),
        (pa.array([Decimal(1), Decimal("1.5")] * 3), r"row 1: label 1\.5 is no class"),
        (pa.array([Decimal(1), Decimal(10**30)] * 3), r"row 1: label 1\d+ is no class"),
    ],
)
def test_classes_that_may_have_merged_are_refused(
    tmp_path: Path, label: pa.Array, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "out", whole(plain(pa.int8()), label))


@pytest.mark.parametrize("swap", [False, True])
def test_text_and_numbers_are_not_one_label(tmp_path: Path, *, swap: bool) -> None:
    tables = [whole(plain(pa.int8())), whole(plain(pa.int8()), pa.array(["a", "b"] * 3))]
    with pytest.raises(DataError, match="make them all text or all numbers"):
        prepared(tmp_path / "out", *(tables[::-1] if swap else tables))


@given(st.integers(-(10**17), 10**17), st.integers(0, 17), st.integers(0, 4))
def test_decimals_are_the_nearest_float_whatever_their_scale(
    unscaled: int, scale: int, more: int
) -> None:
    value = Decimal(unscaled).scaleb(-scale)
    for kind in (pa.decimal128(38, scale), pa.decimal256(60, scale + more)):
        assert numbers(pa.array([value], kind)).tolist() == [float(value)]


UNSUPPORTED = {
    "arrow.uuid": pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([b"x" * 16] * 6, pa.binary(16))
    ),
    "arrow.json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1"] * 6)),
    "arrow.opaque": pa.ExtensionArray.from_storage(
        pa.opaque(pa.int64(), "money", "someone"), plain(pa.int64())
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_extension_type_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"has the extension type {name}, which is not supported"):
        prepared(tmp_path / "out", whole(UNSUPPORTED[name]))
    report = check(str(tmp_path / "out-files" / "*.parquet"))
    assert f"the extension type {name}" in report.problems[0]
    with pytest.raises(DataError, match=f"label column 'label' has the extension type {name}"):
        prepared(tmp_path / "label", whole(plain(pa.int8()), UNSUPPORTED[name]))


def test_an_extension_type_that_nobody_registered_is_known_by_its_metadata(tmp_path: Path) -> None:
    def table(name: str) -> pa.Table:
        field = pa.field("x", pa.int64(), metadata={"ARROW:extension:name": name})
        label = pa.field("label", pa.int64())
        return pa.table([plain(pa.int64()), plain(pa.int64())], schema=pa.schema([field, label]))

    assert prepare(
        MemorySource(table("arrow.bool8")), tmp_path / "out", options=OPTIONS
    ).columns == ("x",)
    with pytest.raises(DataError, match=r"has the extension type pandas\.period"):
        prepare(MemorySource(table("pandas.period")), tmp_path / "bad", options=OPTIONS)


@pytest.mark.parametrize("permutation", [None, [1, 0]])
def test_tensors_of_one_size_and_another_shape_are_not_merged(
    tmp_path: Path, permutation: list[int] | None
) -> None:
    storage = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(24.0)), 6)
    shapes = [
        pa.fixed_shape_tensor(pa.float64(), [2, 3]),
        pa.fixed_shape_tensor(pa.float64(), [2, 3] if permutation else [3, 2], None, permutation),
    ]
    label = plain(pa.int64(), [0, 1, 0, 1])
    arrays = [pa.ExtensionArray.from_storage(shape, storage) for shape in shapes]
    with pytest.raises(DataError, match=r"has tensors of shape .*make them equal"):
        prepared(tmp_path / "out", *(whole(array, label) for array in arrays))
    assert prepared(tmp_path / "one", whole(arrays[1], label)).list_width == 6


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.list_(pa.bool_()), "list"),
        (pa.list_(pa.decimal128(5, 2)), "list"),
        (pa.list_(pa.string()), "unsupported"),
        (pa.list_(pa.list_(pa.int8())), "unsupported"),
        (pa.list_(pa.uuid()), "unsupported"),
        (pa.dictionary(pa.int8(), pa.list_(pa.int8())), "unsupported"),
        (pa.null(), "null"),
        (pa.dictionary(pa.int8(), pa.large_string()), "text"),
        (pa.timestamp("s"), "unsupported"),
    ],
)
def test_kinds(kind: pa.DataType, expected: str) -> None:
    assert kind_of(pa.field("a", kind)) == expected


def test_nothing_of_ray_is_imported_to_read_its_tensors(tmp_path: Path) -> None:
    field = pa.field(
        "x",
        pa.list_(pa.float64()),
        metadata={
            "ARROW:extension:name": "ray.data.arrow_tensor",
            "ARROW:extension:metadata": "[2]",
        },
    )
    schema = pa.schema([field, pa.field("label", pa.int64())])
    table = pa.table([LISTS["list of double"], plain(pa.int64())], schema=schema)
    ours = prepared(tmp_path / "out", table)
    assert (
        ours.digest
        == prepared(
            tmp_path / "same",
            table.cast(
                pa.schema([pa.field("x", pa.list_(pa.float64())), pa.field("label", pa.int64())])
            ),
        ).digest
    )
