import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.errors import CheckpointError, RunError
from distsgd.store import Checkpoint, CheckpointStore, checkpoint

STATE = {"epoch": 3, "digest": "ab" * 32, "noise": {"decay": 0.99}, "best": None}


def arrays_of(step: int) -> dict[str, dict[str, NDArray[Any]]]:
    flat = np.random.default_rng(step).standard_normal(20).astype(np.float32)
    return {
        "weights": {"0.weight": flat[:12].reshape(3, 4), "0.bias": flat[12:16]},
        "optimizer": {"velocity": flat},
    }


def save(store: CheckpointStore, step: int, *, best: bool = False) -> Path:
    return store.save(step, arrays=arrays_of(step), state=STATE | {"epoch": step}, best=best)


def no_message(message: str) -> None:
    raise AssertionError(message)


def assert_is_step(saved: Checkpoint | None, step: int) -> None:
    assert saved is not None
    assert saved.step == step
    assert saved.state == STATE | {"epoch": step}
    expected = arrays_of(step)
    assert saved.arrays.keys() == expected.keys()
    for group, named in expected.items():
        assert saved.arrays[group].keys() == named.keys()
        for name, array in named.items():
            read = saved.arrays[group][name]
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            assert read.tobytes() == array.tobytes()


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    path = save(store, 1234)
    assert path == tmp_path / "checkpoints" / "step-000000001234"
    assert_is_step(store.load(path), 1234)
    assert_is_step(store.latest(no_message), 1234)


def test_checkpoint_is_private_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = save(CheckpointStore(tmp_path), 1)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    names = {"weights.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"}
    assert {file.name for file in path.iterdir()} == names


def test_checkpoint_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    one, two = save(CheckpointStore(tmp_path / "1"), 5), save(CheckpointStore(tmp_path / "2"), 5)
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_checkpoint_arrays_are_the_callers_to_change(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    read = store.load(save(store, 1))
    read.arrays["optimizer"]["velocity"][:] = 0.0
    assert_is_step(store.latest(no_message), 1)


def test_checkpoint_writes_views_in_their_own_order(tmp_path: Path) -> None:
    table = np.arange(12.0).reshape(3, 4)
    views = {
        "transposed": table.T,
        "strided": table[:, ::2],
        "reversed": table[::-1],
        "number": np.array(2.5),
        "nothing": np.zeros((0, 3), np.float32),
        "count": np.array([2**62], np.int64),
    }
    store = CheckpointStore(tmp_path)
    read = store.load(store.save(0, arrays={"weights": views, "optimizer": {}}, state={}))
    assert read.arrays["optimizer"] == {}
    for name, view in views.items():
        assert read.arrays["weights"][name].shape == view.shape
        np.testing.assert_array_equal(read.arrays["weights"][name], view)


def test_store_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.best() is store.latest(no_message) is None
    for step in range(10, 60, 10):
        save(store, step, best=step in {10, 20})
    assert store.steps() == (20, 40, 50)
    assert_is_step(store.best(), 20)
    save(store, 60, best=True)
    assert store.steps() == (50, 60)
    assert store.best_step() == 60
    assert len(list(tmp_path.iterdir())) == 2


def test_store_saves_one_step_twice(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(7, arrays={"old": {}}, state={})
    save(store, 7)
    assert_is_step(store.latest(no_message), 7)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000000007"]


def test_save_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    with pytest.raises(RunError, match="cannot hold this as JSON"):
        store.save(1, arrays=arrays_of(1), state={"loss": float("nan")})
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000000001"]
    assert_is_step(store.latest(no_message), 1)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, r"has \d+ bytes; must have \d+"),
        (flip, "its blake3 is [0-9a-f]{64}; must be [0-9a-f]{64}"),
        (grow, r"has \d+ bytes; must have \d+"),
        (Path.unlink, "is missing"),
    ],
)
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_latest_passes_over_a_damaged_checkpoint_and_says_so(
    tmp_path: Path, name: str, damage: Callable[[Path], None], reason: str
) -> None:
    store, messages = CheckpointStore(tmp_path), list[str]()
    save(store, 1)
    damage(save(store, 2) / name)
    assert_is_step(store.latest(messages.append), 1)
    assert len(messages) == 1
    with pytest.raises(CheckpointError, match=f"step-000000000002/{name}: {reason}") as caught:
        store.load(tmp_path / "step-000000000002")
    assert messages[0] == f"DAMAGED CHECKPOINT, passed over: {caught.value}"


def test_every_flipped_bit_of_a_manifest_is_harmless_or_noticed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(3, arrays={"w": {"a": np.ones(2)}}, state={"epoch": 1})
    manifest = path / "MANIFEST.json"
    whole = manifest.read_bytes()
    noticed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x04
        manifest.write_bytes(damaged)
        try:
            read = store.load(path)
        except CheckpointError:
            noticed += 1
        else:
            assert read.step == 3
            assert read.state == {"epoch": 1}
            assert read.arrays["w"]["a"].tolist() == [1.0, 1.0]
    assert noticed > len(whole) / 2


def test_manifest_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = save(store, 3)
    manifest = json.loads((path / "MANIFEST.json").read_bytes())
    shutil.copy(path / "weights.safetensors", tmp_path / "weights.safetensors")
    entry = manifest["files"].pop("weights.safetensors")
    for name in ("../weights.safetensors", str(tmp_path / "weights.safetensors"), "..", "", "a\0"):
        forged = manifest | {"files": manifest["files"] | {name: entry}}
        (path / "MANIFEST.json").write_text(json.dumps(forged))
        with pytest.raises(
            CheckpointError, match=r"MANIFEST.json: names the file .*; must be a pl"
        ):
            store.load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format is 2; must be 1"),
        ({"best": 1}, "best is 1; must be true or false"),
        ({"step": 4}, "step is 4; must be 3, as the directory is named"),
        ({"files": []}, r"files is \[\]; must be an object"),
        ({"files": {}}, "files is {}; must be an object that names state.json"),
        ({"files": {"state.json": 1}}, "says 1 of state.json"),
        ({"files": {"state.json": {"size_bytes": 1, "blake3": "x"}}}, "blake3 of state.json is"),
    ],
)
def test_manifest_that_is_forged_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    store = CheckpointStore(tmp_path)
    path = save(store, 3)
    manifest = json.loads((path / "MANIFEST.json").read_bytes())
    (path / "MANIFEST.json").write_text(json.dumps(manifest | change))
    with pytest.raises(CheckpointError, match=rf"MANIFEST.json: {reason}"):
        store.load(path)


def test_load_refuses_a_directory_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be named step-"):
        CheckpointStore(tmp_path).load(tmp_path / "step-1")


def test_latest_refuses_when_all_are_damaged(tmp_path: Path) -> None:
    store, messages = CheckpointStore(tmp_path), list[str]()
    for step in (1, 2):
        (save(store, step) / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged"):
        store.latest(messages.append)
    assert len(messages) == 2


def test_store_goes_on_below_a_damaged_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    truncate(save(store, 20) / "weights.safetensors")
    save(store, 10)
    assert store.steps() == (10,)
    save(store, 15)
    assert_is_step(store.latest(no_message), 15)


def test_mark_of_the_best_comes_with_its_checkpoint_and_goes_with_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, best=True)
    best = save(store, 2, best=True)
    save(store, 3)
    assert_is_step(store.best(), 2)
    shutil.rmtree(best)
    save(store, 4)
    assert store.steps() == (3, 4)
    assert store.best() is None


@pytest.mark.parametrize("text", ["{}", '{"step": "../1"}', "5", "{", ""])
def test_damaged_mark_of_the_best_does_not_keep_a_run_from_saving(
    tmp_path: Path, text: str
) -> None:
    store, messages = CheckpointStore(tmp_path, keep=2), list[str]()
    save(store, 1, best=True)
    (save(store, 2, best=True) / "MANIFEST.json").write_text(text)
    assert store.best_step() == 1
    assert_is_step(store.latest(messages.append), 1)
    assert len(messages) == 1
    save(store, 3)
    assert store.best_step() == 1


def test_best_beyond_the_step_a_run_fell_back_to_does_not_hide_a_new_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 10)
    truncate(save(store, 20, best=True) / "weights.safetensors")
    save(store, 12, best=True)
    assert_is_step(store.best(), 12)
    assert store.steps() == (12,)


def test_latest_removes_what_an_interrupted_save_left(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = save(store, 1)
    shutil.copytree(path, tmp_path / ".staging-step-000000000002-0123")
    assert_is_step(store.latest(no_message), 1)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_latest_restores_what_an_interrupted_second_save_moved_away(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1).rename(tmp_path / ".old-step-000000000001")
    assert_is_step(store.latest(no_message), 1)
    shutil.copytree(tmp_path / "step-000000000001", tmp_path / ".old-step-000000000001")
    assert_is_step(store.latest(no_message), 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000000001"]


def test_save_goes_through_what_an_interrupted_second_save_left(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    shutil.copytree(save(store, 1), tmp_path / ".old-step-000000000001")
    save(store, 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000000001"]
    assert_is_step(store.latest(no_message), 1)


def test_latest_leaves_a_save_that_is_going_on_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = save(store, 1)
    busy = tmp_path / ".staging-step-000000000002-0123"
    shutil.copytree(path, busy)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert_is_step(store.latest(no_message), 1)
    assert busy.is_dir()
    os.close(descriptor)
    assert_is_step(store.latest(no_message), 1)
    assert not busy.exists()


def test_save_refuses_to_wait_for_ever_for_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    monkeypatch.setattr(checkpoint, "_LOCK_TIMEOUT_S", 0.0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RunError, match="cannot be written: another process has been writing"):
        save(store, 1)
    os.close(descriptor)
    assert_is_step(store.load(save(store, 1)), 1)
