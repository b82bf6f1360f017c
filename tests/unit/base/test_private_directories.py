"""Private directories: locked while their process lives, swept when it is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from distsgd.base.private_directories import YOUNG_S, directory_of, locked_directory, sweep


def test_sweep_takes_what_killed_runs_left_and_nothing_else(tmp_path: Path) -> None:
    prefix = f"dsgd-{os.getuid()}-"
    for name in (f"{prefix}dead", f"{prefix}alive", f"{prefix}young", "dsgd-other", "mine"):
        (tmp_path / name).mkdir()
        if name != f"{prefix}young":  # Just made: it has no lock yet.
            (tmp_path / name / "lock").touch()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "lock").touch()
    (tmp_path / f"{prefix}link").symlink_to(tmp_path / "target")
    with (tmp_path / f"{prefix}alive" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep(tmp_path, "dsgd") == [tmp_path / f"{prefix}dead"]
        assert {path.name for path in tmp_path.iterdir()} == {
            f"{prefix}alive",
            f"{prefix}young",
            f"{prefix}link",
            "dsgd-other",
            "mine",
            "target",
        }
    assert sweep(tmp_path, "dsgd") == [tmp_path / f"{prefix}alive"]


def test_sweep_takes_what_died_before_its_lock_once_it_is_old(tmp_path: Path) -> None:
    directory = tmp_path / f"dsgd-{os.getuid()}-cut"
    directory.mkdir()
    made_s = directory.stat().st_mtime
    assert sweep(tmp_path, "dsgd", now_s=made_s + YOUNG_S) == []
    assert sweep(tmp_path, "dsgd", now_s=made_s + YOUNG_S + 1) == [directory]
    assert list(tmp_path.iterdir()) == []


def test_directory_that_a_sweep_took_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    mkdtemp, flock = tempfile.mkdtemp, fcntl.flock

    def make(**options: object) -> str:
        made.append(mkdtemp(prefix=str(options["prefix"]), dir=str(options["dir"])))
        return made[-1]

    def lock(descriptor: int, operation: int) -> None:
        if len(made) == 1 and operation & fcntl.LOCK_EX and Path(made[0]).exists():
            shutil.rmtree(made[0])  # As a sweep that had the lock first.
        flock(descriptor, operation)

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    monkeypatch.setattr(fcntl, "flock", lock)
    directory, descriptor = locked_directory(tmp_path, "dsgd")
    assert len(made) == 2
    assert directory == Path(made[1])
    assert sweep(tmp_path, "dsgd") == []
    os.close(descriptor)


def test_directory_of_an_object_is_private_and_gone_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    owner = type("Owner", (), {})()
    directory, remove = directory_of(owner, "dsgd")
    assert directory.parent.parent == tmp_path
    assert directory.parent.stat().st_mode & 0o077 == 0
    assert sweep(tmp_path, "dsgd") == []
    assert not list(directory.iterdir())
    remove()
    assert list(tmp_path.iterdir()) == []
    directory_of(owner, "dsgd")
    del owner
    assert list(tmp_path.iterdir()) == []
