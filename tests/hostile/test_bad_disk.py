"""A disk that is full, read-only or broken: nothing is lost, and the same bits come out later."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from distsgd.errors import CheckpointError, DiskError
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import DigestLog
from tests.hostile.runs import KilledRun

SMALL_DISK = "1m"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> KilledRun:
    return KilledRun.make(tmp_path_factory.mktemp("killed"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(place)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Writes beyond it are refused, as on a disk without room."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def fill(disk: Path, *, but: int) -> Path:
    """Leave about `but` bytes of room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - but))
    return filler


@pytest.mark.parametrize("size_bytes", [0, 1, 40, 150, 300, 500, 800, 1500, 3000])
def test_disk_without_room_ends_the_run_and_a_resume_gives_the_same_bits(
    killed: KilledRun, size_bytes: int
) -> None:
    run = killed.copied()
    before = CheckpointStore(run / "checkpoints").latest(print)
    with files_of_at_most(size_bytes), pytest.raises(DiskError, match="cannot be written") as error:
        killed.trained("run")
    assert run in Path(error.value.path).parents
    assert error.value.exit_code == 4
    assert "resume" in str(error.value)
    after = CheckpointStore(run / "checkpoints").latest(print)
    assert before is not None
    assert after is not None
    assert after.step >= before.step
    killed.go_on(is_forged=False)
    assert not list(run.rglob(".staging-*"))


@pytest.mark.parametrize("but", [0, 4 << 10, 8 << 10, 12 << 10])
def test_full_file_system_is_survived(killed: KilledRun, small_disk: Path, but: int) -> None:
    run = small_disk / "run"
    shutil.copytree(killed.copied(), run)
    filler = fill(small_disk, but=but)
    with pytest.raises(DiskError, match="No space left"):
        killed.trained(str(run))
    filler.unlink()
    assert killed.trained(str(run))["weights_digest"] == (killed.place / "digest").read_text()


def test_run_on_a_read_only_file_system_is_refused_and_untouched(
    killed: KilledRun, small_disk: Path
) -> None:
    run = small_disk / "run"
    shutil.copytree(killed.copied(), run)
    remount = ["mount", "-o", "remount,{},size=" + SMALL_DISK, str(small_disk)]
    subprocess.run([part.format("ro") for part in remount], check=True)
    with pytest.raises(DiskError, match="Read-only file system"):
        killed.trained(str(run))
    with pytest.raises(DiskError, match="Read-only file system"):
        killed.trained(str(small_disk / "new"))
    subprocess.run([part.format("rw") for part in remount], check=True)
    assert killed.trained(str(run))["weights_digest"] == (killed.place / "digest").read_text()


def test_checkpoint_cut_at_any_byte_is_noticed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(3, arrays={"weights": {"a": np.ones(2)}}, state={"epoch": 1}, best=True)
    for file in path.iterdir():
        whole = file.read_bytes()
        for size in range(len(whole)):
            os.truncate(file, size)
            # Only the line end of the manifest says nothing.
            if whole[size:] == b"\n" and file.name == "MANIFEST.json":
                store.load(path)
            else:
                with pytest.raises(CheckpointError):
                    store.load(path)
            file.write_bytes(whole)


def test_flipped_bit_anywhere_in_a_checkpoint_is_noticed_or_harmless(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(3, arrays={"weights": {"a": np.ones(2)}}, state={"epoch": 1}, best=True)
    noticed = num_bits = 0
    for file in path.iterdir():
        whole = file.read_bytes()
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            num_bits += 1
            try:
                read = store.load(path)
            except CheckpointError:
                noticed += 1
            else:
                assert file.name == "MANIFEST.json"
                assert (read.step, read.state) == (3, {"epoch": 1})
                assert read.arrays["weights"]["a"].tolist() == [1.0, 1.0]
                assert store.best_step() == 3
        file.write_bytes(whole)
    assert noticed > 0.95 * num_bits


def test_log_that_was_refused_can_be_flushed_again(tmp_path: Path) -> None:
    log = DigestLog(tmp_path / "digests.jsonl")
    log.append(1, "0" * 64)
    log.flush()
    for step in range(2, 9):
        log.append(step, "0" * 64)
    for size in range(0, 700, 50):
        with files_of_at_most(size), pytest.raises(DiskError, match=r"digests.jsonl: cannot be"):
            log.flush()
        whole = [row.step for row in log.read()]
        assert whole == ([1] if size >= 100 else whole)
    log.flush()
    assert [row.step for row in log.read()] == list(range(1, 9))


def test_run_falls_back_loudly_and_gives_the_same_bits(killed: KilledRun) -> None:
    run = killed.copied()
    newest = max((run / "checkpoints").glob("step-*"))
    data = bytearray((newest / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "weights.safetensors").write_bytes(data)
    messages: list[str] = []
    metrics = killed.trained("run", messages.append)
    assert metrics["weights_digest"] == (killed.place / "digest").read_text()
    assert any(text.startswith("DAMAGED CHECKPOINT, passed over") for text in messages)
    assert str(newest / "weights.safetensors") in "".join(messages)


def test_run_without_a_whole_checkpoint_stops_and_says_where(killed: KilledRun) -> None:
    run = killed.copied()
    for manifest in run.glob("checkpoints/*/MANIFEST.json"):
        manifest.write_bytes(b"")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged") as error:
        killed.trained("run")
    assert error.value.path == run / "checkpoints"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
