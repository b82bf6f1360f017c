from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distsgd.parallel.launch import private_ray

NICENESS = "RAY_worker_niceness"


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for temporary files of this test, short enough for Ray."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as short:  # Its path must be short.
        monkeypatch.setattr(tempfile, "tempdir", short)
        monkeypatch.setattr(private_ray, "_LONGEST_PATH", 50)
        yield Path(short)


def test_python_in_a_path_with_spaces_is_started_by_a_shell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/my clone/.venv/bin/python")
    told = private_ray.options(tmp_path, 3)
    assert shlex.split(told["runtime_env"]["py_executable"]) == ["/my clone/.venv/bin/python"]


def test_environment_is_set_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONOPTIMIZE"):
        monkeypatch.setenv(name, "somewhere")
    monkeypatch.delenv(NICENESS, raising=False)
    before = dict(os.environ)
    with private_ray.environment_kept():
        private_ray.set_environment()
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ[NICENESS] == "0"
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONOPTIMIZE"):
            assert name not in os.environ
        os.environ["RAY_SET_BY_RAY"] = os.environ["PYTHONBREAKPOINT"] = "x"
    assert dict(os.environ) == before
    with contextlib.suppress(KeyError), private_ray.environment_kept():
        private_ray.set_environment()
        raise KeyError
    assert dict(os.environ) == before


def test_variables_that_are_not_rays_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "1")
    with private_ray.environment_kept():
        os.environ["MINE"] = "2"
    assert os.environ["MINE"] == "2"


def test_every_ray_has_a_token_of_its_own() -> None:
    tokens = set()
    for _ in range(2):
        with private_ray.environment_kept():
            private_ray.set_environment()
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert {len(token) for token in tokens} == {64}
    assert len(tokens) == 2


def test_private_directory_is_closed_to_others_and_goes_at_the_end(root: Path) -> None:
    with private_ray.private_directory() as directory:
        outer = directory.parent
        assert outer.parent == root
        assert stat.S_IMODE(outer.stat().st_mode) == 0o700
        directory.mkdir()
        (directory / "session").write_text("x")
    assert list(root.iterdir()) == []
    with pytest.raises(KeyError), private_ray.private_directory():
        raise KeyError
    assert list(root.iterdir()) == []


def test_private_directory_goes_though_a_process_still_writes_there(root: Path) -> None:
    def write(place: Path) -> None:
        for number in range(500):
            with contextlib.suppress(OSError):
                place.mkdir(exist_ok=True)
                (place / str(number)).touch()

    with private_ray.private_directory() as directory:
        writer = threading.Thread(target=write, args=(directory,))
        writer.start()
    writer.join(timeout=30)
    assert list(root.iterdir()) == []


def test_sweep_takes_what_killed_runs_left_and_nothing_else(root: Path) -> None:
    prefix = f"dsgd-{os.getuid()}-"
    for name in (f"{prefix}dead", f"{prefix}alive", f"{prefix}young", "dsgd-other", "mine"):
        (root / name).mkdir()
        if name != f"{prefix}young":  # Just made: it has no lock yet.
            (root / name / "lock").touch()
    (root / "target").mkdir()
    (root / "target" / "lock").touch()
    (root / f"{prefix}link").symlink_to(root / "target")
    with (root / f"{prefix}alive" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert private_ray.sweep(root) == [root / f"{prefix}dead"]
        assert {path.name for path in root.iterdir()} == {
            f"{prefix}alive",
            f"{prefix}young",
            f"{prefix}link",
            "dsgd-other",
            "mine",
            "target",
        }
    assert private_ray.sweep(root) == [root / f"{prefix}alive"]


def test_runs_side_by_side_leave_each_other_alone(root: Path) -> None:
    with private_ray.private_directory() as first, private_ray.private_directory() as second:
        assert first != second
        assert first.parent.exists()
        assert private_ray.sweep(root) == []


def test_sweep_takes_what_died_before_its_lock_once_it_is_old(root: Path) -> None:
    directory = root / f"dsgd-{os.getuid()}-cut"
    directory.mkdir()
    made_s = directory.stat().st_mtime
    assert private_ray.sweep(root, now_s=made_s + private_ray.YOUNG_S) == []
    assert private_ray.sweep(root, now_s=made_s + private_ray.YOUNG_S + 1) == [directory]
    assert list(root.iterdir()) == []


def test_directory_that_a_sweep_took_before_it_was_locked_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
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
    with private_ray.private_directory() as directory:
        assert len(made) == 2
        assert directory.parent == Path(made[1])
        assert private_ray.sweep(root) == []
