from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.dataset import DataSet, Rows
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.data.tables import MemorySource, arrays_source
from distsgd.errors import DataError

Write = Callable[..., Path]
LABEL = PrepareOptions(label=("label",))
A = [1.0, 2.0, 3.0]
Y = [0, 1, 0]


def read_all(rows: Rows, data: DataSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    manifest = data.manifest
    x_NI = np.empty((rows.num_rows, manifest.num_features), manifest.dtype)
    target = (
        np.empty(rows.num_rows, np.int64)
        if manifest.label_kind == "class"
        else np.empty((rows.num_rows, manifest.num_targets), manifest.dtype)
    )
    norms_N = np.empty(rows.num_rows, manifest.dtype)
    rows.gather_range_inplace(0, rows.num_rows, x_NI=x_NI, target=target, squared_norms_N=norms_N)
    return x_NI, target, norms_N, rows.source_rows(np.arange(rows.num_rows))


def example(num_rows: int, num_features: int = 3) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(7)
    return chance.normal(5, 3, (num_rows, num_features)), chance.integers(0, 3, num_rows)


def test_prepare_keeps_every_row_once_with_its_label(tmp_path: Path) -> None:
    x, y = example(1000)
    options = PrepareOptions(label=("label",), test_fraction=0.3, shards=4, dtype="float64")
    prepare(arrays_source(x, y), tmp_path / "out", options=options)
    data = DataSet.open(tmp_path / "out")
    seen = []
    for rows in (data.train, data.test):
        got, target, norms, source_rows = read_all(rows, data)
        assert (got == x[source_rows]).all()
        assert (target == y[source_rows]).all()
        assert np.array_equal(norms, (got * got).sum(axis=1))
        seen.append(source_rows)
    assert len(data.manifest.train_shards) == 4
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(1000))
    assert data.test.num_rows == 300


@pytest.mark.parametrize("kind", ["mean_std", "min_max", "none"])
def test_prepare_standardises_by_statistics_of_training_rows_only(
    tmp_path: Path, kind: str
) -> None:
    x, y = example(500)
    x[:, 1] = 0.1
    options = PrepareOptions(label=("label",), test_fraction=0.4, standardise=kind)  # type: ignore[arg-type]
    manifest = prepare(arrays_source(x, y), tmp_path / "out", options=options)
    data = DataSet.open(tmp_path / "out")
    train = x[data.train.source_rows(np.arange(data.train.num_rows))]
    shift, scale = {
        "mean_std": (train.mean(0), train.std(0)),
        "min_max": (train.min(0), train.max(0) - train.min(0)),
        "none": (np.zeros(3), np.ones(3)),
    }[kind]
    if kind != "none":
        shift[1], scale[1] = 0.1, 1.0
    np.testing.assert_allclose(manifest.shift, shift, rtol=1e-12)
    np.testing.assert_allclose(manifest.scale, scale, rtol=1e-12)
    for rows in (data.train, data.test):
        got, _, _, source_rows = read_all(rows, data)
        assert got.dtype == np.float32
        expected = (x[source_rows] - manifest.shift) / manifest.scale
        assert np.array_equal(got, expected.astype(np.float32))


def test_prepare_gives_the_same_bits_however_the_rows_are_stored(
    tmp_path: Path, write: Write
) -> None:
    x, y = example(70_000)
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "label": y})
    one = write(table, "one.parquet", row_group_size=70_000)
    many = write(table, "many.parquet", row_group_size=9_999)
    parts = [write(table[:12_345], "part1.parquet"), write(table[12_345:], "part2.parquet")]
    options = PrepareOptions(label=("label",), test_fraction=0.2, standardise="mean_std", shards=3)
    sources: list[object] = [one, many, parts, str(tmp_path / "part*.parquet"), MemorySource(table)]
    manifests = [
        prepare(source, tmp_path / f"out{i}", options=options)  # type: ignore[arg-type]
        for i, source in enumerate(sources)
    ]
    assert len({manifest.digest for manifest in manifests}) == 1
    other = PrepareOptions(
        **{name: getattr(options, name) for name in options.__slots__} | {"split_seed": 1}
    )
    assert prepare(one, tmp_path / "other", options=other).digest != manifests[0].digest


@settings(max_examples=15, deadline=None)
@given(
    num_rows=st.integers(1, 40),
    cut=st.integers(0, 40),
    shards=st.sampled_from(["auto", 1, 2, 50]),
    fraction=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**64 - 1),
)
def test_prepare_works_for_any_small_shape(
    tmp_path_factory: pytest.TempPathFactory,
    num_rows: int,
    cut: int,
    shards: int,
    fraction: float,
    seed: int,
) -> None:
    out = tmp_path_factory.mktemp("any") / "out"
    x, _ = example(num_rows)
    options = PrepareOptions(
        label=("label",), shards=shards, test_fraction=fraction, split_seed=seed
    )
    source = arrays_source(x, np.zeros(num_rows, int))
    if fraction and num_rows == 1:
        with pytest.raises(DataError, match="none is left to train on"):
            prepare(source, out, options=options)
        return
    prepare(source, out, options=options)
    data = DataSet.open(out)
    assert data.test.num_rows == (num_rows + 1) // 2 * (fraction > 0)
    assert data.train.num_rows == num_rows - data.test.num_rows
    cut = min(cut, data.train.num_rows)
    x_NI, target = np.empty((cut, 3), np.float32), np.empty(cut, np.int64)
    data.train.gather_inplace(np.arange(cut), x_NI=x_NI, target=target, squared_norms_N=None)
    assert np.array_equal(x_NI, read_all(data.train, data)[0][:cut])


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (pa.array(["b", "a", "b"]), "class", ("a", "b")),
        (pa.array(["b", "a", "b"]).dictionary_encode(), "class", ("a", "b")),
        (pa.array([True, False, True]), "class", (False, True)),
        (pa.array([10, 9, 10]), "class", (9, 10)),
        (pa.array(["10", "9", "10"]), "class", ("10", "9")),
        (pa.array([2**63 + 1, 1, 2**63 + 1], pa.uint64()), "class", (1, 2**63 + 1)),
        (pa.array([1.5, 2.0, 1.0]), "number", ()),
    ],
)
def test_prepare_knows_labels_by_their_type_and_keeps_their_values(
    tmp_path: Path, labels: pa.Array, kind: str, names: tuple[object, ...]
) -> None:
    table = pa.table({"a": [1.0, 2.0, 3.0], "label": labels})
    prepare(MemorySource(table), tmp_path / "out", options=LABEL)
    data = DataSet.open(tmp_path / "out")
    assert data.manifest.label_kind == kind
    assert data.manifest.class_names == names
    assert [type(name) for name in data.manifest.class_names] == [type(name) for name in names]
    _, target, _, source_rows = read_all(data.train, data)
    if kind == "class":
        assert [names[i] for i in target] == [labels[int(row)].as_py() for row in source_rows]
    else:
        assert target[:, 0].tolist() == [labels[int(row)].as_py() for row in source_rows]


def test_prepare_takes_several_labels_as_numbers(tmp_path: Path) -> None:
    y = np.arange(8).reshape(4, 2)
    options = PrepareOptions(label=("label_0", "label_1"))
    manifest = prepare(arrays_source(np.eye(4), y), tmp_path / "out", options=options)
    data = DataSet.open(tmp_path / "out")
    _, target, _, source_rows = read_all(data.train, data)
    assert manifest.num_targets == 2
    assert np.array_equal(target, y[source_rows].astype(np.float32))


def test_prepare_takes_whole_floats_as_classes_when_told(tmp_path: Path) -> None:
    source = arrays_source(np.eye(3), np.array([2.0, 0.0, 2.0]))
    options = PrepareOptions(label=("label",), label_kind="class")
    assert prepare(source, tmp_path / "out", options=options).class_names == (0, 2)


@pytest.mark.parametrize("kind", [pa.list_(pa.int16()), pa.list_(pa.float32(), 2)])
def test_prepare_reads_a_list_column_as_its_numbers(
    tmp_path: Path, write: Write, kind: pa.DataType
) -> None:
    path = write({"x": pa.array([[1, 2], [3, 4], [5, 6]], kind), "label": [0, 1, 0]})
    manifest = prepare(path, tmp_path / "out", options=LABEL)
    data = DataSet.open(tmp_path / "out")
    got, _, _, source_rows = read_all(data.train, data)
    assert manifest.feature_names == ("x[0]", "x[1]")
    assert np.array_equal(got, np.array([[1, 2], [3, 4], [5, 6]])[source_rows])


def test_prepare_holds_out_test_sources(tmp_path: Path, write: Write) -> None:
    train = write({"a": [1.0, 2.0], "label": [0, 1]}, "train.parquet")
    test = write({"a": [7.0], "label": [1]}, "test.parquet")
    options = PrepareOptions(label=("label",), test_sources=(str(test),), standardise="mean_std")
    manifest = prepare(train, tmp_path / "out", options=options)
    assert (manifest.train_rows, manifest.test_rows) == (2, 1)
    assert manifest.statistics.maximum == (2.0,)
    assert manifest.locate(2) == (str(test), 0)


def test_prepare_stratifies_by_the_class_of_each_row(tmp_path: Path, write: Write) -> None:
    names = np.array(["rare"] * 10 + ["once"] + ["often"] * 89)
    names = np.random.default_rng(0).permutation(names)
    table = pa.table({"a": np.arange(100.0), "label": names})
    options = PrepareOptions(label=("label",), test_fraction=0.25, stratify=True, shards=2)
    paths = [write(table[:33], "1.parquet"), write(table[33:], "2.parquet", row_group_size=7)]
    in_files = prepare(paths, tmp_path / "files", options=options)
    assert in_files == replace(
        prepare(MemorySource(table), tmp_path / "out", options=options), sources=in_files.sources
    )
    data = DataSet.open(tmp_path / "out")
    assert data.manifest.stratify
    assert data.manifest.class_names == ("often", "once", "rare")
    for rows in (data.train, data.test):
        _, target, _, source_rows = read_all(rows, data)
        assert (np.array(data.manifest.class_names)[target] == names[source_rows]).all()
    # 22.25, 0.25 and 2.5 rows of 25: the one seat that is left is of the largest remainder.
    assert np.bincount(target, minlength=3).tolist() == [22, 0, 3]


def test_prepare_leaves_pandas_index_columns_out_of_the_rest(tmp_path: Path, write: Write) -> None:
    path = write({"a": A, "label": Y, "__index_level_0__": A})
    assert prepare(path, tmp_path / "out", options=LABEL).columns == ("a",)


def test_read_features_treats_new_rows_as_training_rows(tmp_path: Path, write: Write) -> None:
    x, y = example(50)
    names = np.array(["low", "mid", "top"])
    options = PrepareOptions(label=("label",), standardise="mean_std")
    manifest = prepare(arrays_source(x, names[y]), tmp_path / "out", options=options)
    [(got, target, first)] = read_features(arrays_source(x, names[y]), manifest)
    data = DataSet.open(tmp_path / "out")
    expected, expected_target, _, source_rows = read_all(data.train, data)
    assert np.array_equal(got[source_rows], expected)
    assert target is not None
    assert np.array_equal(target[source_rows], expected_target)
    assert first == 0
    unlabelled = write({"x": pa.array(x.tolist(), pa.list_(pa.float64(), 3))})
    [(again, none, _)] = read_features(unlabelled, manifest)
    assert none is None
    assert np.array_equal(again, got)
    with pytest.raises(DataError, match="has no label column"):
        next(iter(read_features(unlabelled, manifest, labels="required")))


def test_read_features_names_unknown_classes_and_missing_columns(
    tmp_path: Path, write: Write
) -> None:
    train = write({"a": A, "label": ["u", "v", "u"]}, "train.parquet")
    manifest = prepare(train, tmp_path / "out", options=LABEL)
    new = write({"a": A, "label": ["u", "w", "u"]}, "new.parquet")
    with pytest.raises(DataError, match=r"row 1: label 'w' is none of the classes .*'u', 'v'"):
        list(read_features(new, manifest))
    assert len(list(read_features(new, manifest, labels="ignored"))) == 1
    with pytest.raises(DataError, match="has no feature column 'a'"):
        list(read_features(write({"b": A}, "other.parquet"), manifest))


def test_prepare_never_decodes_more_of_a_file_than_it_bounds(tmp_path: Path) -> None:
    # A hundred megabytes of equal rows take kilobytes on the disk; they come in bounded pieces.
    values = pa.array(np.zeros(1_000_000))
    table = pa.table({"a": values, "b": values, "label": pa.array(["same"] * 1_000_000)})
    pq.write_table(table, tmp_path / "bomb.parquet", row_group_size=1_000_000)
    before = pa.default_memory_pool().max_memory()
    del table, values
    manifest = prepare(tmp_path / "bomb.parquet", tmp_path / "out", options=LABEL)
    assert manifest.train_rows == 1_000_000
    assert pa.default_memory_pool().max_memory() - before < 64 << 20


def test_long_text_in_a_dictionary_is_no_class_and_takes_no_memory(
    write: Write, tmp_path: Path
) -> None:
    texts = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(50_000, np.int32)), pa.array(["x" * (1 << 20)])
    )
    path = write({"a": np.zeros(50_000), "label": texts})
    with pytest.raises(DataError, match="has 1048576 characters, at most 1000"):
        prepare(path, tmp_path / "out", options=PrepareOptions(("label",)))


def test_classes_are_those_of_rows_and_not_of_their_dictionary(
    write: Write, tmp_path: Path
) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2]), pa.array(["b", "unused", "a"]))
    path = write({"a": [1.0, 2.0, 3.0], "label": texts})
    manifest = prepare(path, tmp_path / "out", options=PrepareOptions(("label",)))
    assert manifest.class_names == ("a", "b")
