"""A Ray that does not start: what is said of it, and when."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from distsgd.errors import ClusterError
from distsgd.lab.standing_ray import standing_ray


def use_ray(place: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have new processes import this as Ray."""
    (place / "ray").mkdir()
    (place / "ray" / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), *sys.path]))


def test_one_that_ends_at_once_is_told_by_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_ray(tmp_path, monkeypatch, "raise OSError('no room in /dev/shm')")
    said = r"Ray does not start \(it ended with: OSError: no room in /dev/shm\); see distsgd doctor"
    with pytest.raises(ClusterError, match=said), standing_ray(1):
        pass


def test_one_that_does_not_start_in_time_is_told_by_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_ray(tmp_path, monkeypatch, "import sys; sys.stdin.read()")
    said = "Ray does not start within 0.5 s; see distsgd doctor"
    with pytest.raises(ClusterError, match=said), standing_ray(1, start_timeout_s=0.5):
        pass
