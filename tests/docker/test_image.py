"""The image's steps, followed in an empty directory by a user without rights; takes minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user without rights"),
    pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)"),
]


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that everybody may enter, in place of the image's root."""
    with tempfile.TemporaryDirectory(prefix="di", dir="/tmp") as short:
        place = Path(short)
        place.chmod(0o755)
        yield place


def python_of_everybody() -> str:
    """A Python that a user without rights may run, too; the root's own lies in its home often."""
    for python in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        needs = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
        command = [*AS_NOBODY, "sh", "-c", f"{python} -c '{needs}'"]
        if not subprocess.run(command, capture_output=True, check=False).returncode:
            return python
    pytest.skip("no Python 3.11 with venv that every user may run")


def steps() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The instructions of both stages of the Dockerfile."""
    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.findall(r"^([A-Z]+) (.+)$", text, re.MULTILINE)
    second = [number for number, (word, _) in enumerate(found) if word == "FROM"][1]
    return found[:second], found[second:]


def test_steps_of_the_image_make_an_environment_that_trains(root: Path) -> None:
    build, image = steps()
    source, opt, home = root / "source", root / "opt", root / "home"
    for place in (source, opt, home):
        place.mkdir()
    environment = {name: it for name, it in os.environ.items() if name.startswith("PIP_")}
    environment |= {"HOME": str(home), "PATH": f"{opt}/distsgd/bin:/usr/bin:/bin"}
    make = f"{python_of_everybody()} -m venv"
    for word, text in build:
        if word == "COPY":
            for name in text.split()[:-1]:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, source / name)
        if word == "RUN":
            command = text.replace("/opt/", f"{opt}/").replace("python -m venv", make)
            subprocess.run(command, shell=True, cwd=source, env=environment, check=True)  # noqa: S602
    shutil.rmtree(source)  # What is installed must not need it.
    shutil.rmtree(home)
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    environment |= {"TMPDIR": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    train = next(json.loads(text) for word, text in image if word == "CMD")
    for typed in (["init", "digits"], [*train, "--set=train.epochs=2"], ["job", "submit", "-h"]):
        words = [*AS_NOBODY, "distsgd", *typed]
        subprocess.run(words, cwd=home, env=environment, check=True, timeout=300)
    (result,) = home.glob("runs/*/result.json")
    assert '"status": "done"' in result.read_text()
    for package in ("pytest", "moto"):
        assert not list(opt.glob(f"distsgd/lib/python*/site-packages/{package}"))
