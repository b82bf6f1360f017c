"""The transformer on Python's help topics, from ``init`` to its text."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

SHORT = ("train.steps=3", "model.options={width = 16, layers = 1, heads = 2}")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example in a directory, with a HOME of its own and a short temporary directory."""
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as short:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TMPDIR", short)
        run(tmp_path, "-m", "distsgd", "init", "gpt", timeout_s=60)
        yield tmp_path


def run(place: Path, *words: str, timeout_s: int) -> str:
    """Standard output of a Python in `place`."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses_and_text(place: Path) -> tuple[float, float, str]:
    """What ``gpt_sample.py`` prints: the loss, the 3-gram's, text."""
    said = run(place, "gpt_sample.py", "gpt", timeout_s=100)
    found = re.match(r"held-out loss ([\d.]+) nats a character; 3-gram ([\d.]+)\n\n", said)
    assert found, said
    return float(found[1]), float(found[2]), said[found.end() :]


def test_some_steps_give_text_without_sense(place: Path) -> None:
    changes = [word for change in SHORT for word in ("--set", change)]
    words = ("train", "gpt.toml", "--workers", "0", "--run-dir", "gpt", *changes)
    run(place, "-m", "distsgd", *words, timeout_s=100)
    loss, three_gram, text = losses_and_text(place)
    assert 3 < loss < 5
    assert 1.5 < three_gram < 2.1
    assert text.startswith("The ")


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_two_workers_learn_more_than_a_three_gram_knows(place: Path) -> None:
    words = ("train", "gpt.toml", "--workers", "2", "--run-dir", "gpt")
    run(place, "-m", "distsgd", *words, timeout_s=1800)
    loss, three_gram, _ = losses_and_text(place)
    assert loss <= 1.9
    assert loss < three_gram
