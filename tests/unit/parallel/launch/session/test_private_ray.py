from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distsgd.parallel.launch.session import private_ray

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


@pytest.mark.usefixtures("root")
def test_runs_side_by_side_leave_each_other_alone() -> None:
    with private_ray.private_directory() as first, private_ray.private_directory() as second:
        assert first != second
        assert first.parent.exists()
