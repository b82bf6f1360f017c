from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.data.dataset import DataSet, Rows
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.shards import ShardArrays
from distsgd.data.tables import arrays_source
from distsgd.errors import ShardError


def rows_of(sizes: list[int], num_classes: int = 3) -> tuple[Rows, ShardArrays]:
    """Rows over shards of some sizes, and the same as one."""
    total = sum(sizes)
    numbers = np.arange(total)
    whole = ShardArrays(
        np.stack([numbers, numbers * 2.0], axis=1).astype(np.float32),
        numbers % num_classes,
        (numbers * 0.5).astype(np.float32),
        numbers[::-1].copy(),
    )
    ends = np.cumsum(sizes)
    parts = [
        ShardArrays(
            whole.x_NI[end - size : end],
            whole.target[end - size : end],
            whole.squared_norms_N[end - size : end],
            whole.source_rows_N[end - size : end],
        )
        for size, end in zip(sizes, ends, strict=True)
    ]
    return Rows(parts, sizes, num_classes), whole


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_gather_equals_indexing_the_whole(sizes: list[int], data: st.DataObject) -> None:
    rows, whole = rows_of(sizes)
    chosen = st.lists(st.integers(0, sum(sizes) - 1), max_size=8)
    numbers = np.array(sorted(data.draw(chosen)), np.int64)
    x_NI = np.empty((len(numbers), 2), np.float32)
    target, norms_N = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.float32)
    one_hot = np.empty((len(numbers), 3), np.float32)
    rows.gather_inplace(numbers, x_NI=x_NI, target=target, squared_norms_N=norms_N)
    assert np.array_equal(x_NI, whole.x_NI[numbers])
    assert np.array_equal(target, whole.target[numbers])
    assert np.array_equal(norms_N, whole.squared_norms_N[numbers])
    rows.gather_inplace(numbers, x_NI=x_NI, target=one_hot, squared_norms_N=None)
    assert np.array_equal(one_hot, np.eye(3, dtype=np.float32)[target])
    assert np.array_equal(rows.source_rows(numbers), whole.source_rows_N[numbers])
    rows.will_need(range(sum(sizes)))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_gather_range_equals_slicing_the_whole(sizes: list[int], data: st.DataObject) -> None:
    rows, whole = rows_of(sizes)
    first = data.draw(st.integers(0, sum(sizes)))
    last = data.draw(st.integers(first, sum(sizes)))
    x_NI = np.empty((last - first, 2), np.float32)
    one_hot, norms_N = np.empty((last - first, 3)), np.empty(last - first, np.float32)
    rows.gather_range_inplace(first, last, x_NI=x_NI, target=one_hot, squared_norms_N=norms_N)
    assert np.array_equal(x_NI, whole.x_NI[first:last])
    assert np.array_equal(one_hot, np.eye(3)[whole.target[first:last]])
    assert np.array_equal(norms_N, whole.squared_norms_N[first:last])


def test_rows_of_no_shard_are_none() -> None:
    assert Rows([], [], 0).num_rows == 0


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    source = arrays_source(np.eye(6), np.array([0, 1] * 3))
    options = PrepareOptions(label=("label",), shards=2)
    prepare(source, tmp_path / "data", options=options)
    return tmp_path / "data"


def test_data_set_rows_are_mapped_and_read_only(prepared: Path) -> None:
    data = DataSet.open(prepared)
    targets, source_rows = next(data.train.targets())
    assert not targets.flags.writeable
    assert not source_rows.flags.writeable
    assert data.test.num_rows == 0


def test_data_set_names_a_shard_with_a_flipped_bit(prepared: Path) -> None:
    shard = next(prepared.glob("train-*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="checksum") as caught:
        DataSet.open(prepared)
    assert caught.value.path == str(shard)


@pytest.mark.parametrize("verify", [True, False])
def test_data_set_names_a_shard_that_is_short_or_missing(prepared: Path, *, verify: bool) -> None:
    shard = next(prepared.glob("train-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ShardError, match="bytes"):
        DataSet.open(prepared, verify=verify)
    shard.unlink()
    with pytest.raises(ShardError, match="is missing"):
        DataSet.open(prepared, verify=verify)


def test_data_set_refuses_a_foreign_file_of_the_right_length(prepared: Path) -> None:
    shard = next(prepared.glob("train-*.arrow"))
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(ShardError, match="cannot be read"):
        DataSet.open(prepared, verify=False)


def test_data_set_refuses_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="is no prepared data set"):
        DataSet.open(tmp_path)
    with pytest.raises(ShardError, match="is no prepared data set"):
        DataSet.open(tmp_path / "nowhere")
