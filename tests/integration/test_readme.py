"""Every block of the README runs as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from distsgd.config import TrainConfig

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
SHELL = [text for language, text in BLOCKS if language == "sh"]

pytestmark = pytest.mark.timeout(240)


def run(script: str, where: Path) -> str:
    """Run shell lines with the tests' own environment first on the path, to the first failure."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=where,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_two_commands_run() -> None:
    # The whole test suite would start itself here; that its command starts pytest is what is left.
    said = run(SHELL[0].replace("scripts/test ", "scripts/test --version "), ROOT)
    assert "test accuracy" in said
    accuracy = float(re.findall(r"test accuracy\s+([\d.]+)", said)[-1])
    assert accuracy >= 0.96
    assert "pytest" in said


def test_the_commands_by_hand_run_and_both_runs_have_one_digest(tmp_path: Path) -> None:
    run(SHELL[1], tmp_path)
    digests = [
        json.loads((tmp_path / "playground" / name / "result.json").read_text())["weights_digest"]
        for name in ("first", "second")
    ]
    assert digests[0] == digests[1]


def test_the_python_example_runs(tmp_path: Path) -> None:
    run("distsgd init digits", tmp_path)
    (code,) = [text for language, text in BLOCKS if language == "python"]
    (tmp_path / "example.py").write_text(code)
    said = run("python example.py", tmp_path)
    assert re.search(r"^0\.9[6-9]", said, re.MULTILINE)
    assert "Verification(steps=460" in said


def test_the_configuration_is_the_one_that_init_writes() -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml"]
    shown = TrainConfig.from_dict(tomllib.loads(text), base=ROOT / "distsgd" / "examples")
    written = TrainConfig.from_toml(ROOT / "distsgd" / "examples" / "digits.toml")
    assert shown == written


def test_every_block_is_one_that_runs() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "toml"}
    assert len(SHELL) == 2


def test_four_values_of_the_example_are_not_the_defaults() -> None:
    path = ROOT / "distsgd" / "examples" / "digits.toml"
    shown = tomllib.loads(path.read_text())
    needed = {
        "data": {key: shown["data"][key] for key in ("path", "label")},
        "model": {key: shown["model"][key] for key in ("layers", "loss")},
    }
    example = TrainConfig.from_toml(path).to_dict()
    default = TrainConfig.from_dict(needed, base=path.parent).to_dict()
    assert {
        f"{section}.{key}": value
        for section, values in default.items()
        for key, value in values.items()
        if value != example[section][key]
    } == {
        "data.test_fraction": 0.0,
        "optimizer.type": "sgd",
        "schedule.type": "constant",
        "train.epochs": 10,
    }
