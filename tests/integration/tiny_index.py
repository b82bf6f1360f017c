"""An index of packages that a test makes itself, and pips that see no other."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def write_wheel(
    index: Path,
    name: str,
    version: str,
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> Path:
    """One module of that name, unless `files` says otherwise; the wheel's path."""
    info = f"{name}-{version}.dist-info"
    metadata = [
        *("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"),
        *(f"Provides-Extra: {extra}" for extra in extras),
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    contents = {
        **({f"{name}.py": f"version = {version!r}\n"} if files is None else files),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*contents, f"{info}/RECORD"])
    wheel = index / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in contents.items():
            archive.writestr(file, text)
    return wheel


def pin(wheel: Path, marker: str = "") -> str:
    """The line of a lock for `wheel`, as pip-compile writes it."""
    name, version = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name}=={version}{marker} \\\n    --hash=sha256:{digest}\n    # via somebody\n"


def environment(home: Path, index: Path, *pips: Path) -> dict[str, str]:
    """Of a process whose pip knows `index` only, and no settings of ours; `pips` is put first."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PYTHONPATH": os.pathsep.join(map(str, pips)),
    }


def oldest_pip() -> Path:
    """Where the oldest pip that a Python of ours bundles lies: what the test lock pins by hash."""
    (line, hashes) = re.findall(
        r"^pip==(\S+) .*\n((?: +--hash=.*\n)+)",
        (ROOT / "requirements-test.lock").read_text(),
        re.MULTILINE,
    )[0]
    bundled = Path(sysconfig.get_path("stdlib")) / "ensurepip" / "_bundled"
    for directory in (Path(sys.prefix) / "oldest-pip", bundled):
        for wheel in directory.glob(f"pip-{line}-*.whl"):
            if hashlib.sha256(wheel.read_bytes()).hexdigest() in hashes:
                return wheel
    if importlib.metadata.version("pip") == line:
        return Path(sysconfig.get_path("purelib"))
    pytest.skip(f"pip {line} is not here: this environment is not of scripts/env's making")


def pip_that_runs(pip: Path) -> Path:
    """`pip`, where this Python can run it."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "--version"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(pip)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if said.returncode:
        pytest.skip(f"{pip} does not run on Python {sys.version.split()[0]}: {said.stderr[-200:]}")
    return pip
