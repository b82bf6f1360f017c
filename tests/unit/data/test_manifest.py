from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.data.manifest import (
    MANIFEST_FILE,
    Manifest,
    RunningStatistics,
    standardise_inplace,
)
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import arrays_source
from distsgd.errors import ShardError


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    source = arrays_source(np.eye(6), np.array(["a", "b"] * 3))
    options = PrepareOptions(label=("label",), standardise="mean_std")
    prepare(source, tmp_path / "data", options=options)
    return tmp_path / "data"


def write_digested(directory: Path, raw: dict[str, Any]) -> None:
    (directory / MANIFEST_FILE).write_text(json.dumps(raw))


def test_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    source = arrays_source(np.arange(8.0).reshape(4, 2) / 3, np.array([True, False] * 2))
    written = prepare(source, tmp_path / "data", options=PrepareOptions(label=("label",)))
    assert read_manifest(tmp_path / "data") == written
    assert written.class_names == (False, True)
    assert written.num_targets == 2


def test_manifest_of_784_features_is_small(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 784))
    options = PrepareOptions(label=("label",), standardise="mean_std")
    prepare(arrays_source(x, np.zeros(50, int)), tmp_path / "data", options=options)
    assert (tmp_path / "data" / MANIFEST_FILE).stat().st_size < 48_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version is 1; must be 2 (another version of distsgd wrote it)"),
        ({"version": 3}, "version is 3; must be 2"),
        ({"format": "else"}, "format is 'else'"),
        ({"dtype": "object"}, "dtype is 'object'"),
        ({"split_seed": True}, "split_seed is True"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"stratify": 1}, "stratify is 1; must be true or false"),
        ({"columns": "x"}, "columns is 'x'; must be a list"),
        ({"columns": []}, "columns is []; must be one list column"),
        ({"labels": ["x"]}, "must be no feature columns"),
        ({"list_width": 7}, "must be lists of 7 numbers"),
        ({"class_names": ["a", 1]}, "class_names"),
        ({"class_names": []}, "class_names"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"train_shards": []}, "train_shards"),
        ({"train_shards": [7]}, "train_shards[0]. is 7; must be an object"),
        ({"sources": []}, "sources"),
        ({"digest": "0" * 64}, "does not have the digest it claims"),
        ({"split_seed": 5}, "does not have the digest it claims"),
        ({"statistics": {"mean": [1]}}, "statistics.deviation is None; must be there"),
    ],
)
def test_manifest_values_are_not_trusted(
    prepared: Path, change: dict[str, Any], message: str
) -> None:
    raw = json.loads((prepared / MANIFEST_FILE).read_text())
    write_digested(prepared, raw | change)
    with pytest.raises(ShardError) as caught:
        read_manifest(prepared)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["../evil.arrow", "/etc/passwd", "a/b.arrow", ".x.arrow", "x"])
def test_manifest_files_stay_in_the_directory(prepared: Path, name: str) -> None:
    raw = json.loads((prepared / MANIFEST_FILE).read_text())
    raw["train_shards"][0]["file"] = name
    write_digested(prepared, raw)
    with pytest.raises(ShardError, match="must be the plain name of a shard file"):
        read_manifest(prepared)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', "\x00"])
def test_manifest_that_is_no_manifest_is_refused(prepared: Path, text: str) -> None:
    (prepared / MANIFEST_FILE).write_text(text)
    with pytest.raises(ShardError):
        read_manifest(prepared)


def test_manifest_digest_does_not_depend_on_where_the_rows_came_from(prepared: Path) -> None:
    manifest = read_manifest(prepared)
    moved = Manifest(
        **{name: getattr(manifest, name) for name in manifest.__slots__} | {"sources": ()}
    )
    assert moved.with_digest().digest == manifest.digest


@given(cuts=st.lists(st.integers(0, 200), max_size=5), offset=st.sampled_from([0.0, 1e9]))
def test_running_statistics_equal_those_of_all_rows(cuts: list[int], offset: float) -> None:
    x = np.random.default_rng(1).normal(offset, 2.0, (200, 3))
    running = RunningStatistics(3)
    for part in np.split(x, sorted(cuts)):
        running.add(part)
    found = running.result()
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-13)
    # The two-pass deviation itself is exact to about eps * offset / deviation.
    np.testing.assert_allclose(found.deviation, x.std(axis=0), rtol=1e-13 + 2e-16 * offset)
    assert found.minimum == tuple(x.min(axis=0))
    assert found.maximum == tuple(x.max(axis=0))


def test_a_constant_feature_becomes_zero() -> None:
    x = np.full((1000, 1), 0.1)
    running = RunningStatistics(1)
    running.add(x)
    for kind in ("mean_std", "min_max"):
        shift, scale = running.result().shift_and_scale(kind)
        assert scale[0] == 1.0
        copy = x.copy()
        standardise_inplace(copy, shift, scale)
        assert not copy.any()


def test_one_row_has_statistics() -> None:
    running = RunningStatistics(2)
    running.add(np.array([[1.0, 2.0]]))
    assert running.result().deviation == (0.0, 0.0)
