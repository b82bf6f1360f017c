"""Every block of the README runs as it stands; those on models of one's own elsewhere."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from distsgd.config import TrainConfig
from distsgd.parallel.worker import BlockWorker
from tests.readme import BLOCKS, ROOT

PYTHON = [text for language, text in BLOCKS if language == "python"]
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
    (tmp_path / "example.py").write_text(PYTHON[0])
    said = run("python example.py", tmp_path)
    assert re.search(r"^0\.9[6-9]", said, re.MULTILINE)
    assert "Verification(steps=460" in said


def test_the_worker_is_the_one_in_the_docstring_and_trains(tmp_path: Path) -> None:
    documented = (inspect.getdoc(BlockWorker) or "").splitlines()
    code = textwrap.dedent("\n".join(line for line in documented if line.startswith("    ")))
    shown = PYTHON[1].splitlines()
    assert [line for line in shown if line] == code.splitlines()
    assert len(code.splitlines()) <= 20
    (tmp_path / "own_worker.py").write_text(PYTHON[1])
    (tmp_path / "rows.csv").write_text("x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(20)))
    config = """
        [data]
        path = "rows.csv"
        label = "y"
        [model]
        layers = [{type = "dense", units = 1}]
        loss = "quadratic"
        [batch]
        size = 5
        [parallel]
        worker = "own_worker:MedianWorker"
        workers = 0
    """
    (tmp_path / "rows.toml").write_text(config)
    said = run("distsgd train rows.toml --run-dir run && distsgd verify run", tmp_path)
    assert "train loss" in said


def test_the_configuration_is_the_one_that_init_writes() -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml"]
    shown = TrainConfig.from_dict(tomllib.loads(text), base=ROOT / "distsgd" / "examples")
    written = TrainConfig.from_toml(ROOT / "distsgd" / "examples" / "digits.toml")
    assert shown == written


def test_every_block_is_one_that_runs() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "toml"}
    assert len(SHELL) == 4  # The third by tests/cluster/test_readme_on_hosts.py.


def test_the_experiments_run(tmp_path: Path) -> None:
    run(SHELL[3], tmp_path)
    made = {file.name for file in (tmp_path / "scaling" / "experiment").iterdir()}
    assert {"report.html", "report.json", "cells.parquet"} <= made
    compared = {file.name for file in (tmp_path / "scaling" / "comparison").iterdir()}
    assert compared == {"compare.html", "compare.json"}


def test_four_values_of_the_example_are_not_the_defaults() -> None:
    path = ROOT / "distsgd" / "examples" / "digits.toml"
    shown = tomllib.loads(path.read_text())
    needed = {
        "data": {key: shown["data"][key] for key in ("path", "label")},
        "model": {key: shown["model"][key] for key in ("layers", "loss")},
    }
    default = TrainConfig.from_dict(needed, base=path.parent)
    assert (default.optimizer.type, default.schedule.type) == ("sgd", "constant")
    # Of another type, so with settings that those two do not have.
    types = {name: {"type": shown[name]["type"]} for name in ("optimizer", "schedule")}
    example = TrainConfig.from_toml(path).to_dict()
    assert {
        f"{section}.{key}": value
        for section, values in TrainConfig.from_dict(needed | types, base=path.parent)
        .to_dict()
        .items()
        for key, value in values.items()
        if value != example[section][key]
    } == {"data.test_fraction": 0.0, "train.epochs": 10}
