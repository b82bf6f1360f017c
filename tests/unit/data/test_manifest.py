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
    ShardEntry,
    SourceEntry,
    Statistics,
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


def of_before(**given: Any) -> Manifest:
    """A manifest as it could be before features had a kind and targets a shape."""
    fields: dict[str, Any] = {
        "columns": ("a", "b"),
        "list_width": None,
        "labels": ("y",),
        "label_kind": "class",
        "target_shape": (),
        "class_names": (0, 1),
        "dtype": "float32",
        "standardise": "none",
        "statistics": Statistics((0.5, 1.0), (0.5, 1.0), (0.0, 0.0), (1.0, 2.0)),
        "split_seed": 0,
        "test_fraction": 0.0,
        "stratify": False,
        "train_shards": (ShardEntry("train-00000.arrow", 4, 100, "0" * 64),),
        "test_shards": (),
        "sources": (SourceEntry("x", 1, 4),),
    }
    return Manifest(**fields | given).with_digest()


OF_NUMBERS: dict[str, Any] = {
    "labels": ("y", "z"),
    "label_kind": "number",
    "target_shape": (2,),
    "class_names": (),
}


@pytest.mark.parametrize(
    ("given", "digest"),
    [
        ({}, "1e8594bb8377935677dc673cf6ecb5cde1d9043ef288e748189f2f306eb2081b"),
        (OF_NUMBERS, "978e134df24dd389088e8f289391655198058f2a3e06f84df7153bfd513ab38f"),
    ],
)
def test_data_sets_keep_the_digest_and_the_file_that_they_had(
    tmp_path: Path, given: dict[str, Any], digest: str
) -> None:
    manifest = of_before(**given)
    assert manifest.digest == digest
    assert not {"feature_kind", "target_shape"} & json.loads(manifest.to_json()).keys()
    (tmp_path / MANIFEST_FILE).write_text(manifest.to_json())
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    "given",
    [
        {"feature_kind": "integer"},
        {"target_shape": (3,)},
        {"target_shape": (1,)},
        OF_NUMBERS | {"target_shape": (2, 1)},
        OF_NUMBERS | {"labels": ("y",)},
    ],
)
def test_what_is_new_in_a_data_set_is_in_its_digest(tmp_path: Path, given: dict[str, Any]) -> None:
    manifest = of_before(**given)
    assert manifest.digest not in {of_before().digest, of_before(**OF_NUMBERS).digest}
    (tmp_path / MANIFEST_FILE).write_text(manifest.to_json())
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_shape": (0,)}, "target_shape is [0]; must be a list of whole numbers of at leas"),
        ({"target_shape": (True,)}, "target_shape is [True]; must be a list of whole numbers of"),
        ({"target_shape": (2**11, 2**11)}, "must be axes of the 1 labels, or of one list"),
        (OF_NUMBERS | {"target_shape": (3,)}, "must be axes of the 2 labels, or of one list"),
        ({"feature_kind": "text"}, "feature_kind is 'text'; must be one of number, integer"),
        ({"feature_kind": "integer", "standardise": "min_max"}, 'must be "none" for integers'),
        (
            {
                "feature_kind": "integer",
                "statistics": Statistics((1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (1.0, 2.5)),
            },
            "must be those of integers from 0 on",
        ),
    ],
)
def test_new_values_are_not_trusted_either(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    (tmp_path / MANIFEST_FILE).write_text(of_before(**given).to_json())
    with pytest.raises(ShardError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value)


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
