"""Labels that are lists: a class at each place, or numbers of any axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.data.check import check
from distsgd.data.dataset import DataSet
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.columns import PIECE_BYTES, piece_rows
from distsgd.data.prepare.prepare import prepare, read_features
from distsgd.data.tables import MemorySource, arrays_source
from distsgd.errors import DataError

Write = Callable[..., Path]
A = [[0.5, 1.0], [1.5, 2.0], [2.5, 3.0], [3.5, 4.0]]
TOKENS = [[7, 2, 2], [5, 7, 9], [9, 9, 2], [2, 5, 7]]


def options(**given: Any) -> PrepareOptions:
    return PrepareOptions(**{"label": ("y",)} | given)


def source(y: Any) -> MemorySource:
    return MemorySource(pa.table({"x": pa.array(A), "y": y}))


def targets(data: DataSet) -> NDArray[Any]:
    """Those of the training rows, in the order of the source."""
    rows = data.train
    found = data.manifest.empty_targets(rows.num_rows)
    x_NI = np.empty((rows.num_rows, data.manifest.num_features), data.manifest.dtype)
    numbers = np.arange(rows.num_rows)
    rows.gather_inplace(numbers, x_NI=x_NI, target=found, squared_norms_N=None)
    again = np.empty_like(found)
    rows.gather_range_inplace(0, len(found), x_NI=x_NI, target=again, squared_norms_N=None)
    assert np.array_equal(found, again)
    in_order: NDArray[Any] = found[np.argsort(rows.source_rows(numbers))]
    return in_order


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int8()), pa.list_(pa.int64(), 3), pa.large_list(pa.uint16())]
)
def test_a_list_of_integers_is_a_class_at_each_place(tmp_path: Path, kind: Any) -> None:
    manifest = prepare(source(pa.array(TOKENS, kind)), tmp_path / "data", options=options())
    assert (manifest.label_kind, manifest.target_shape) == ("class", (3,))
    assert (manifest.class_names, manifest.num_targets) == ((2, 5, 7, 9), 4)
    assert manifest.target_names == ("y[0]", "y[1]", "y[2]")
    data = DataSet.open(tmp_path / "data")
    assert targets(data).dtype == np.int64
    assert np.array_equal(np.array(manifest.class_names)[targets(data)], TOKENS)
    assert read_manifest(tmp_path / "data") == manifest
    assert check(tmp_path / "data").problems == ()


def test_classes_at_places_can_be_gathered_one_hot(tmp_path: Path) -> None:
    prepare(source(pa.array(TOKENS)), tmp_path / "data", options=options(shards=2))
    data = DataSet.open(tmp_path / "data")
    x_NI, rows = np.empty((4, 2), np.float32), np.arange(4)
    one_hot = np.empty((4, 3, 4), np.float32)
    data.train.gather_inplace(rows, x_NI=x_NI, target=one_hot, squared_norms_N=None)
    classes = np.empty((4, 3), np.int64)
    data.train.gather_inplace(rows, x_NI=x_NI, target=classes, squared_norms_N=None)
    assert np.array_equal(one_hot, np.eye(4, dtype=np.float32)[classes])
    again = np.empty_like(one_hot)
    data.train.gather_range_inplace(0, 4, x_NI=x_NI, target=again, squared_norms_N=None)
    assert np.array_equal(one_hot, again)


def test_a_list_of_floats_is_numbers_of_any_axes(tmp_path: Path) -> None:
    y = np.arange(24.0).reshape(4, 6) / 8
    column = pa.array(y.tolist())
    flat = prepare(source(column), tmp_path / "flat", options=options())
    assert (flat.label_kind, flat.target_shape, flat.num_targets) == ("number", (6,), 6)
    assert np.array_equal(targets(DataSet.open(tmp_path / "flat")), y)
    folded = prepare(source(column), tmp_path / "folded", options=options(target_shape=(2, 3)))
    assert (folded.target_shape, folded.num_targets) == ((2, 3), 6)
    assert np.array_equal(targets(DataSet.open(tmp_path / "folded")), y.reshape(4, 2, 3))
    assert flat.digest != folded.digest
    # The shards are the same: a shape is what their lists mean.
    assert [it.checksum for it in flat.train_shards] == [it.checksum for it in folded.train_shards]


def test_lists_of_integers_are_numbers_where_that_is_asked_for(tmp_path: Path) -> None:
    made = prepare(
        source(pa.array(TOKENS)), tmp_path / "data", options=options(label_kind="number")
    )
    assert (made.label_kind, made.class_names, made.target_shape) == ("number", (), (3,))
    assert np.array_equal(targets(DataSet.open(tmp_path / "data")), TOKENS)


def test_a_list_of_booleans_is_classes_true_and_false(tmp_path: Path) -> None:
    y = pa.array([[True, False]] * 3 + [[False, False]])
    assert prepare(source(y), tmp_path / "data", options=options()).class_names == (False, True)


def test_a_list_of_one_number_is_the_number(tmp_path: Path) -> None:
    lists = prepare(
        source(pa.array([[1.0], [2.0], [3.0], [4.0]])), tmp_path / "a", options=options()
    )
    plain = prepare(source(pa.array([1.0, 2.0, 3.0, 4.0])), tmp_path / "b", options=options())
    assert lists.target_shape == plain.target_shape == (1,)
    assert lists.digest == plain.digest


def test_several_columns_of_numbers_can_have_axes(tmp_path: Path) -> None:
    y = np.arange(16.0).reshape(4, 4)
    names = tuple(f"label_{k}" for k in range(4))
    asked = PrepareOptions(label=names, target_shape=(2, 2))
    made = prepare(arrays_source(np.array(A), y), tmp_path / "data", options=asked)
    assert (made.target_shape, made.target_names) == ((2, 2), names)
    assert np.array_equal(targets(DataSet.open(tmp_path / "data")), y.reshape(4, 2, 2))


@pytest.mark.parametrize("stored", ["memory", "parquet", "arrow"])
def test_tensors_have_the_axes_that_their_type_says(tmp_path: Path, stored: str) -> None:
    y = np.arange(24).reshape(4, 2, 3) % 5
    made: Any = arrays_source(np.array(A), y, label="y")
    table = pa.Table.from_batches(made.batches(("x", "y")), made.schema)
    if stored == "parquet":
        made = tmp_path / "rows.parquet"
        pq.write_table(table, made)
    elif stored == "arrow":
        made = tmp_path / "rows.arrow"
        with pa.OSFile(str(made), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    manifest = prepare(made, tmp_path / "data", options=options())
    assert (manifest.target_shape, manifest.num_targets) == ((2, 3), 5)
    assert np.array_equal(targets(DataSet.open(tmp_path / "data")), y)


def test_arrays_of_two_axes_are_columns_unless_a_shape_is_given(tmp_path: Path) -> None:
    y = np.array(TOKENS)
    assert arrays_source(np.array(A), y).schema.names == ["x", "label_0", "label_1", "label_2"]
    lists = arrays_source(np.array(A), y, label="y", target_shape=(3,))
    assert lists.schema.names == ["x", "y"]
    made = prepare(lists, tmp_path / "data", options=options(target_shape=(3,)))
    assert (made.label_kind, made.target_shape) == ("class", (3,))


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    num_rows=st.integers(1, 20),
    shards=st.sampled_from([1, 3]),
    are_classes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_targets_of_any_shape_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    num_rows: int,
    shards: int,
    *,
    are_classes: bool,
    seed: int,
) -> None:
    out, chance = tmp_path_factory.mktemp("any") / "data", np.random.default_rng(seed)
    y: NDArray[Any] = chance.integers(-3, 3, (num_rows, *shape))
    y = y if are_classes else y / 4
    x_NI = chance.standard_normal((num_rows, 2))
    rows = arrays_source(x_NI, y, label="y", target_shape=shape)
    asked = options(shards=shards, target_shape=shape)
    manifest = prepare(rows, out, options=asked)
    assert manifest.target_shape == shape
    found = targets(DataSet.open(out))
    found = np.array(manifest.class_names)[found] if are_classes else found
    assert np.array_equal(found, y)
    [(_, again, _)] = read_features(rows, manifest, labels="required")
    assert again is not None
    assert np.array_equal(np.array(manifest.class_names)[again] if are_classes else again, y)


def test_pieces_are_bounded_by_lists_of_labels_too(tmp_path: Path) -> None:
    width = 1 << 14
    y = np.arange(300 * width).reshape(300, width) % 3
    rows = arrays_source(np.ones((300, 1)), y, label="y", target_shape=(width,))
    made = prepare(rows, tmp_path / "data", options=options(target_shape=(width,)))
    num_rows = [len(x_NI) for x_NI, _, _ in read_features(rows, made, labels="required")]
    assert max(num_rows) == piece_rows(width) == PIECE_BYTES // (8 * width) == 128
    assert sum(num_rows) == 300


@pytest.mark.parametrize(
    ("y", "asked", "message"),
    [
        (
            [[1, 2], [1], [2, 1], [2, 2]],
            {},
            "column 'y', row 1: list of 1 values; must be 2, as in",
        ),
        ([[1, 2], [1, None], [2, 1], [2, 2]], {}, "column 'y', row 1: null in the list; fill it"),
        ([[1, 2], None, [2, 1], [2, 2]], {}, "column 'y', row 1: null label list; fill it in"),
        ([None, [1, 2], [2, 1], [2, 2]], {}, "column 'y', row 0: null label list; fill it in"),
        (
            pa.array([[]] * 4, pa.list_(pa.int8())),
            {},
            "has 0 labels; must be 1 to 1048576; choose other label columns",
        ),
        ([["a", "b"]] * 4, {}, "label column 'y' has lists of text; must be lists of integers or"),
        (
            [[1.0, 2.0], [1.0, 2.5], [2.0, 2.0], [1.0, 1.0]],
            {"label_kind": "class"},
            r"column 'y\[1\]', row 1: label 2.5 is no class: classes are text, booleans or whole",
        ),
        (
            [[1.0, 2.0], [1.0, 2.0], [float("nan"), 2.0], [1.0, 1.0]],
            {},
            r"column 'y\[0\]', row 2: label nan is not a finite number; correct or remove the row",
        ),
        (
            [[1.0, 2.0], [1.0, 1e300], [2.0, 2.0], [1.0, 1.0]],
            {},
            r"column 'y\[1\]', row 1: 1e\+300 does not fit float32",
        ),
        (
            [[1, 2, 3, 4, 5, 6]] * 4,
            {"target_shape": (2, 2)},
            r"target_shape is \[2, 2\], axes of 4 values, but label y has lists of 6 a row; must",
        ),
        (
            [1, 2, 1, 2],
            {"target_shape": (2,)},
            r"target_shape is \[2\], axes of 2 values, but label y has 1 a row",
        ),
        (
            TOKENS,
            {"stratify": True, "test_fraction": 0.5},
            "label column 'y' holds lists, and only single classes can be stratified; set stratify",
        ),
    ],
)
def test_what_cannot_be_a_list_of_labels_is_refused(
    tmp_path: Path, y: Any, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare(source(pa.array(y)), tmp_path / "data", options=options(**asked))
    assert not (tmp_path / "data").exists()


class Twice:
    """A source of a user's own, which gives other rows each time where it is told to."""

    name, num_rows, num_bytes = "twice", 4, 0
    schema = pa.schema({"x": pa.float32(), "y": pa.list_(pa.int64(), 2)})

    def __init__(self, *, changes: bool) -> None:
        self._changes, self._reading = changes, 0

    def batches(self, columns: Any) -> Any:  # noqa: ARG002 -- all are given.
        self._reading += self._changes
        lists = [[self._reading, 2], [2, 0], [0, 1], [1, 2]]
        yield pa.record_batch([[0.0, 1.0, 2.0, 3.0], lists], schema=self.schema)

    def check_unchanged(self) -> None:
        pass


def test_a_source_of_ones_own_must_give_the_same_lists_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distsgd.data.prepare.columns.KEPT_BYTES", -1)  # Read, and read again.
    made = prepare(Twice(changes=False), tmp_path / "data", options=options())
    assert (made.class_names, made.target_shape) == ((0, 1, 2), (2,))
    with pytest.raises(DataError, match="gave other labels when it was read again"):
        prepare(Twice(changes=True), tmp_path / "other", options=options())


def test_a_list_is_the_only_label(tmp_path: Path) -> None:
    table = pa.table({"x": A, "y": TOKENS, "z": [1.0] * 4})
    with pytest.raises(DataError, match="column 'y' is a list among other label columns; name it"):
        prepare(MemorySource(table), tmp_path / "data", options=options(label=("z", "y")))


def test_several_columns_are_no_class_and_the_way_out_is_said(tmp_path: Path) -> None:
    rows = arrays_source(np.array(A), np.array(TOKENS), label="y")
    asked = options(label=("y_0", "y_1", "y_2"), label_kind="class")
    with pytest.raises(DataError, match=r"cannot be one class.* or of arrays y with target_shape"):
        prepare(rows, tmp_path / "data", options=asked)


def test_files_must_agree_in_the_lists_of_their_labels(tmp_path: Path, write: Write) -> None:
    one = write({"a": [1.0, 2.0], "y": [[1, 2], [2, 1]]}, "one.parquet")
    numbers = write({"a": [1.0, 2.0], "y": [1, 2]}, "two.parquet")
    with pytest.raises(DataError, match=r"column 'y' has type int64, but list<.*make them equal"):
        prepare([one, numbers], tmp_path / "data", options=options())
    longer = write({"a": [1.0], "y": [[1, 2, 2]]}, "three.parquet")
    with pytest.raises(DataError, match=r"three.parquet: column 'y', row 0: list of 3 values"):
        prepare([one, longer], tmp_path / "data", options=options())


def test_a_class_in_held_out_lists_only_is_refused_with_its_row(
    tmp_path: Path, write: Write
) -> None:
    train = write({"a": [1.0, 2.0], "y": [[1, 2], [2, 1]]}, "train.parquet")
    test = write({"a": [1.0, 2.0], "y": [[1, 2], [2, 9]]}, "test.parquet")
    asked = options(test_sources=(str(test),))
    with pytest.raises(DataError) as caught:
        prepare(train, tmp_path / "data", options=asked)
    assert str(caught.value) == (
        f"{test}: column 'y', row 1: class 9 is in held-out rows only; give it training rows, or "
        "put a class that has some in its place"
    )


def test_new_rows_must_have_the_lists_of_training(tmp_path: Path) -> None:
    manifest = prepare(source(pa.array(TOKENS)), tmp_path / "data", options=options())

    def read(y: Any) -> Any:
        return list(read_features(source(pa.array(y)), manifest, labels="required"))

    [(_, target, _)] = read([[2, 5, 7]] * 4)
    assert np.array_equal(target, [[0, 1, 2]] * 4)
    with pytest.raises(
        DataError, match="has one value a row; must have lists of 3, as in training"
    ):
        read([2, 5, 7, 9])
    with pytest.raises(
        DataError, match="has lists of 2 a row; must have lists of 3, as in training"
    ):
        read([[2, 5]] * 4)
    with pytest.raises(DataError, match=r"column 'y\[1\]', row 0: label 6 is none of the classes"):
        read([[2, 6, 7]] * 4)
    assert [
        target
        for _, target, _ in read_features(source(pa.array(TOKENS)), manifest, labels="ignored")
    ] == [None]


def test_a_problem_of_a_label_is_named_by_its_place(tmp_path: Path) -> None:
    rows = source(pa.array([[0.5, 1.5]] * 4))
    manifest = prepare(rows, tmp_path / "data", options=options())
    with pytest.raises(DataError, match=r"column 'y\[1\]', row 2: is odd"):
        list(read_features(rows, manifest, label_problem=lambda _target: (2, 1, "is odd")))
