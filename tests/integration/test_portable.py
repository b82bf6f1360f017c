"""Portable numerics from the command line and on Ray, in processes with kernels of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.program import settings
from tests.processors import needs_avx2

pytestmark = [pytest.mark.timeout(240), needs_avx2]
PORTABLE = "train.numerics=portable"
# Read by Python as it starts: every process that Ray starts gets another kernel.
OTHER_KERNEL = """
import os, sys

if any("default_worker" in word for word in sys.orig_argv):
    os.environ["OPENBLAS_CORETYPE"] = "Nehalem"
"""
IN_PYTHON = """
import sys
from distsgd import Run, Trainer, TrainConfig
from distsgd.errors import NumericsError
config = TrainConfig.from_toml("digits.toml").with_overrides(["train.numerics=portable"])
for make in (lambda: Trainer(config), lambda: Run.open(sys.argv[1]).verify()):
    try:
        make()
    except NumericsError as error:
        print(error)
print(Run.open(sys.argv[1]).evaluate().rows)
"""


def python(
    place: Path, *words: str, kernel: str = "Nehalem", **variables: str
) -> tuple[int, str, str]:
    """A Python that starts with `kernel`, whatever this one has; exit code and what it said."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("NPY_")
    } | {"OPENBLAS_CORETYPE": kernel, **variables}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def train(place: Path, run: str, *overrides: str, **environment: str) -> dict[str, Any]:
    words = ["train", "digits.toml", "--json", "--run-dir", run, *settings("train.epochs=1")]
    code, out, said = python(place, "-m", "distsgd", *words, *settings(*overrides), **environment)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found | {"code": code, "said": said}


def test_command_starts_itself_again_and_gives_the_same_bits_from_any_kernel(place: Path) -> None:
    runs = [
        train(place, kernel, PORTABLE, "parallel.workers=0", kernel=kernel)
        for kernel in ("Nehalem", "Haswell")
    ]
    native = train(place, "native", "parallel.workers=0")
    assert [run["code"] for run in (*runs, native)] == [0, 0, 0], runs[0]["said"]
    assert runs[0]["weights_digest"] == runs[1]["weights_digest"] != native["weights_digest"]
    assert runs[0]["said"].count("done:") == 1
    recorded = json.loads((place / "Nehalem" / "environment.json").read_text())["numerics"]
    assert recorded["kernel"] == "Haswell"
    for command in ("verify", "evaluate"):
        code, out, said = python(place, "-m", "distsgd", command, "Nehalem", "--json")
        assert (code, len(out.splitlines())) == (0, 1), said
    said = train(place, "native", PORTABLE, "parallel.workers=0", kernel="Haswell")["said"]
    assert "holds a run already" in said
    _check_in_python(place)


def _check_in_python(place: Path) -> None:
    code, out, said = python(place, "-c", IN_PYTHON, "Nehalem")
    assert code == 0, said
    trained, verified, rows = out.splitlines()
    assert trained == verified
    assert 'set OPENBLAS_CORETYPE="Haswell" and NPY_DISABLE_CPU_FEATURES=' in trained
    assert "before Python starts" in trained
    assert int(rows) > 0


def test_workers_are_portable_and_a_node_with_other_bits_is_refused_by_name(place: Path) -> None:
    alone = train(place, "alone", PORTABLE, "parallel.workers=0")["weights_digest"]
    workers = ("parallel.workers=2", "parallel.assignment=all")
    several = train(place, "several", PORTABLE, *workers)
    assert several["weights_digest"] == alone, several["said"]
    (place / "sitecustomize.py").write_text(OTHER_KERNEL)
    path = os.pathsep.join([str(place), *sys.path])
    refused = train(place, "refused", *workers, kernel="Haswell", PYTHONPATH=path)
    assert (refused["code"], refused["status"]) == (4, "failed")
    for words in (
        f"node {platform.node()} computes other bits than the process that started the run",
        "kernel Nehalem",
        "kernel Haswell",
        'set [train] numerics = "portable"',
    ):
        assert words in refused["error"]
    assert not (place / "refused" / "config.json").exists()
