"""Files of a run that are larger than what may lie in memory: whole or not there, part by part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distsgd.base import locations
from distsgd.base.locations import PART_SIZE_BYTES, Location
from distsgd.errors import CheckpointError, StorageError
from distsgd.store import upload
from distsgd.store.pointer import POINTER, Files, Pointer
from distsgd.store.remote_run import RemoteRun
from tests.storage import copier
from tests.storage.proxy import FaultProxy

NUM_PARTS = 16
CONTENT = np.random.default_rng(0).bytes(5 << 20)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (locations, upload):
        monkeypatch.setattr(module, "PART_SIZE_BYTES", 1 << 20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run's directory with a large file, and one of several pieces."""
    place = tmp_path / "work"
    (place / "checkpoints").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "checkpoints" / "weights").write_bytes(CONTENT)
    (place / "digests.jsonl").write_bytes(CONTENT[:2])
    return place


def test_memory_does_not_grow_with_a_file_that_is_uploaded_or_fetched(
    bucket: Location, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    with (tmp_path / "work" / "weights").open("wb") as file:
        file.truncate(NUM_PARTS * PART_SIZE_BYTES)
    command = [sys.executable, "-W", "error", copier.__file__, str(bucket / "run"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < NUM_PARTS * PART_SIZE_BYTES / 2
    assert (tmp_path / "copy" / "weights").stat().st_size == NUM_PARTS * PART_SIZE_BYTES


@pytest.mark.usefixtures("small_parts")
def test_file_of_several_parts_and_pieces_comes_back_as_it_was(
    bucket: Location, place: Path, tmp_path: Path
) -> None:
    run = RemoteRun(bucket / "run")
    run.create(place)
    with run.lease("me") as lease:
        for size in (2, 3_000_000, 4_194_304, len(CONTENT)):
            (place / "digests.jsonl").write_bytes(CONTENT[:size])
            lease.publish(place)
    pointer = run.look()
    assert isinstance(pointer, Pointer)
    assert len(pointer.files["digests.jsonl"]) == 4
    copy = run.fetch(tmp_path / "copy")
    for name in ("digests.jsonl", "checkpoints/weights"):
        assert (copy / name).read_bytes() == CONTENT


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("cut_after", [2_500, 40_000])
def test_fetch_that_is_cut_in_the_middle_leaves_the_file_as_it_was(
    bucket: Location, place: Path, proxy: FaultProxy, tmp_path: Path, cut_after: int
) -> None:
    run = RemoteRun(bucket / "run")
    run.create(place)
    files = Files()
    copy = run.fetch(tmp_path / "copy", files)
    fetched = dict(files)
    (place / "checkpoints" / "weights").write_bytes(CONTENT[::-1])
    with run.lease("me") as lease:
        lease.publish(place)
    proxy.spared, proxy.cut_after, proxy.cuts = 3, cut_after, 1000  # The pointer, and two parts.
    with pytest.raises(StorageError, match=r"s3://.*/run/objects/.*reading: "):
        run.fetch(copy, files)
    assert files == fetched
    assert (copy / "checkpoints" / "weights").read_bytes() == CONTENT
    assert not list(copy.rglob(".*"))
    proxy.spared = proxy.cuts = 0
    run.fetch(copy, files)
    assert (copy / "checkpoints" / "weights").read_bytes() == CONTENT[::-1]


def test_publish_that_fails_in_the_middle_of_a_file_changes_nothing(
    bucket: Location, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    run = RemoteRun(bucket / "run")
    run.create(place)
    big = CONTENT * 6  # Three parts: begun, sent one by one, ended.
    (place / "checkpoints" / "weights").write_bytes(big)
    with run.lease("me") as lease:
        for spared in range(1, 5):
            proxy.spared, proxy.refusals = spared, 1000
            with pytest.raises(StorageError, match=r"s3://.*/run/"):
                lease.publish(place)
            proxy.spared = proxy.refusals = 0
            copy = run.fetch(tmp_path / f"copy-{spared}")
            assert (copy / "checkpoints" / "weights").read_bytes() == CONTENT
        lease.publish(place)
    assert (run.fetch(tmp_path / "new") / "checkpoints" / "weights").read_bytes() == big


@pytest.mark.usefixtures("small_parts")
def test_large_file_of_the_right_size_and_other_bits_is_damaged(
    bucket: Location, place: Path, tmp_path: Path
) -> None:
    run = RemoteRun(bucket / "run")
    run.create(place)
    pointer = run.look()
    assert isinstance(pointer, Pointer)
    (piece,) = pointer.files["checkpoints/weights"]
    for wrong in (CONTENT[:-1] + b"x", CONTENT + b"x", CONTENT[:-1]):
        (run.location / piece.name).write_bytes(wrong)
        with pytest.raises(CheckpointError, match=f"another size or checksum than {POINTER} says"):
            run.fetch(tmp_path / "copy")
        assert not (tmp_path / "copy" / "checkpoints" / "weights").exists()
