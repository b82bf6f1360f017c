"""One process makes an experiment, in one place; what was made elsewhere is refused or said."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from distsgd.errors import RunError
from distsgd.experiments.environment import environment, held_alone
from distsgd.experiments.findings import Findings
from distsgd.experiments.scale import Scale, read_plan
from tests.unit.experiments.rows import begun

QUICK = {"timed_s": 0.05, "batches": (24, "full"), "rates": None, "seeds": 1}
HERE = environment("float32")


def made(directory: Path) -> Findings:
    return Scale(directory, read_plan(directory), directory.parent / "cache", lambda _: None).run()


def test_one_process_at_a_time_makes_an_experiment(tmp_path: Path) -> None:
    directory, _ = begun(tmp_path, **QUICK)
    who = f"is being made by process {os.getpid()} on {socket.gethostname()}; wait for it"
    with held_alone(directory), pytest.raises(RunError, match=who):
        made(directory)
    with held_alone(directory):  # It was let go of.
        pass


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, _ = begun(tmp_path_factory.mktemp("here"), **QUICK)
    found = made(directory)
    assert found.environment == HERE
    assert not [text for text in found.warnings if "elsewhere" in text]
    return directory


@pytest.fixture
def finished(made_here: Path, tmp_path: Path) -> Path:
    """A copy of an experiment that was made here; each test makes of it one that was not."""
    return shutil.copytree(made_here, made_here.with_name(tmp_path.name))


def change(file: Path, *keys: str, value: str) -> None:
    """Another value in a file of JSON."""
    whole = inner = json.loads(file.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(json.dumps(whole))


def test_times_of_another_machine_are_not_added_to(finished: Path) -> None:
    pairs = sorted(finished.glob("timing/*/pair-*.json"))
    for pair in pairs:
        change(pair, "environment", "processor", value="Z80")
    assert made(finished).environment == HERE | {"processor": "Z80"}  # None is missing.
    pairs[-1].unlink()
    said = r"was timed elsewhere, .* processor Z80 \(here .*\); continue .* or begin another"
    with pytest.raises(RunError, match=said):
        made(finished)


def test_learning_with_other_bits_is_not_added_to(finished: Path) -> None:
    run = next(finished.glob("learning/*/*/*/environment.json"))
    change(run, "numerics", "probe", value="0" * 32)
    with pytest.raises(RunError, match=r"another numerics profile.* or begin another \(--out\)"):
        made(finished)


def test_learning_elsewhere_with_the_same_bits_is_said(finished: Path) -> None:
    run = next(finished.glob("learning/*/*/*/environment.json"))
    change(run, "numerics", "kernel", value="Zen9")
    (said,) = (text for text in made(finished).warnings if "elsewhere" in text)
    assert "runs that were made elsewhere than the times, with the same bits: 1, " in said
    assert "kernel Zen9 (here " in said
