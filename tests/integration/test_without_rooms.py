"""What may be deleted and a run is still made: the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import distsgd
import distsgd_workers

DELETED = ("jobs", "lab", "lessons")
SETTINGS = ["--set", "train.steps=30", "--set", "train.history_every=10"]


def train(place: Path, packages: Path | None) -> str:
    """The weights' digest of a run in `place`, by the packages in the directory `packages`."""
    environment = dict(os.environ)
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    code = "import distsgd; print(distsgd.__file__)"
    found = subprocess.check_output([sys.executable, "-c", code], cwd=place, env=environment)
    assert packages is None or Path(found.decode().strip()).is_relative_to(packages)
    command = [sys.executable, "-m", "distsgd", "train", "digits.toml", "--json", "--workers", "0"]
    done = subprocess.run(
        [*command, *SETTINGS, "--run-dir", "without" if packages else "with"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.splitlines()[-1])["weights_digest"])


def test_run_without_lab_and_lessons_has_the_same_bits(place: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    for module in (distsgd, distsgd_workers):
        source = Path(str(module.__file__)).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, packages / source.name, ignore=ignored)
    for room in DELETED:
        shutil.rmtree(packages / "distsgd" / room)
    assert train(place, packages) == train(place, None)
