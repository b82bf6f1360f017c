from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

import pytest

from distsgd.parallel import local_ray


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary files of this test, short enough for Ray."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as short:  # noqa: S108 -- its path must be short.
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert tmp_path.exists()
        return Path(short)


def test_environment_is_set_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    before = dict(os.environ)
    with local_ray.environment():
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_worker_niceness"] == "0"
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert "RAY_ADDRESS" not in os.environ
    assert dict(os.environ) == before
    with pytest.raises(KeyError), local_ray.environment():
        raise KeyError
    assert dict(os.environ) == before


def test_every_ray_gets_a_token_of_its_own() -> None:
    tokens = set()
    for _ in range(3):
        with local_ray.environment():
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(tokens) == 3
    assert all(len(token) == 64 for token in tokens)
