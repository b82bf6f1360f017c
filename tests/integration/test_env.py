"""scripts/env in a little project: it makes, adds and mends, and leaves what is not its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.tiny_index import ROOT, environment, pin, write_wheel

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "distsgd"
version = "1.0"
dependencies = ["wanted>=1"]
[project.optional-dependencies]
plots = ["drawing"]
cluster = ["joining"]
s3 = []
dev = ["trying"]
torch = ["learning"]
jax = ["learning"]
dev-models = []
"""
# A build backend of the project's own, so that nothing else is needed.
BACKEND = """
from pathlib import Path
from tests_wheel import write_wheel

def build_editable(directory, config_settings=None, metadata_directory=None):
    info = "distsgd-1.0.dist-info/entry_points.txt"
    files = {"distsgd.pth": str(Path.cwd()), info: "[console_scripts]\\ndistsgd = distsgd:main\\n"}
    return write_wheel(Path(directory), "distsgd", "1.0", ["wanted>=1"], files=files).name
"""
SILENT = ""

pytestmark = pytest.mark.timeout(300)  # Each makes environments, with pip in them.


class Place:
    """A project with scripts/env, and an index of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.index, self.bin = root / "project", root / "index", root / "bin"
        for directory in (self.root / "scripts", self.root / "distsgd", self.index, self.bin):
            directory.mkdir(parents=True)
        for script in ("env", "requirements.py"):
            shutil.copy(ROOT / "scripts" / script, self.root / "scripts" / script)
        tiny_index = Path(str(sys.modules[write_wheel.__module__].__file__))
        code = tiny_index.read_text().replace("import pytest\n", "")
        (self.root / "tests_wheel.py").write_text(code)
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "distsgd" / "__init__.py").write_text("def main(): print('runs')\n")
        # The Python that these tests run with, as the first one that is looked for.
        (self.bin / "python3.13").symlink_to(Path(sys.executable).resolve())
        self.lock("requirements.lock", "wanted", "1.0")
        self.lock("requirements-plots.lock", "drawing", "1.0")
        self.lock("requirements-cluster.lock", "joining", "1.0")
        self.lock("requirements-models.lock", "learning", "1.0")
        self.lock("requirements-test.lock", "trying", "1.0", "wanted")
        oldest = pin(write_wheel(self.index, "pip", "23.2.1"), ' ; extra == "oldest-pip"')
        with (self.root / "requirements-test.lock").open("a") as file:
            file.write(oldest)

    def lock(self, file: str, name: str, version: str, *requires: str) -> None:
        (self.root / file).write_text(pin(write_wheel(self.index, name, version, requires)))

    def run(self, *command: str | Path) -> tuple[int, str]:
        """Exit code, and what was said."""
        settings = environment(self.root.parent / "home", self.index)
        done = subprocess.run(
            command,
            cwd=self.root,
            env=settings | {"PATH": f"{self.bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        return done.returncode, done.stdout + done.stderr

    def env(self, *options: str) -> tuple[int, str]:
        return self.run(self.root / "scripts" / "env", *options)

    def packages(self) -> dict[str, str]:
        """Versions by name."""
        code, said = self.run(
            self.root / ".venv" / "bin" / "python", "-m", "pip", "freeze", "--all"
        )
        assert code == 0, said
        return dict(re.findall(r"^([\w-]+)==(\S+)$", said, re.MULTILINE))

    def install(self, *requirements: str) -> None:
        """As the user does it, by hand."""
        pip = (self.root / ".venv" / "bin" / "python", "-m", "pip", "install")
        code, said = self.run(*pip, *requirements)
        assert code == 0, said


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_env_makes_adds_and_mends_in_place(place: Place) -> None:
    # Interrupted on the way, here by an index that lacks something: gone on with, not begun anew.
    (wheel := next(place.index.glob("wanted-*"))).rename(hidden := place.index / "hidden")
    code, said = place.env()
    assert code != 0
    assert "run it again to continue" in said
    assert "PyTorch" not in said
    assert f"making {place.root}/.venv with Python 3." in said
    assert f"({place.bin}/python3.13)" in said
    mark = place.root / ".venv" / "mark"
    mark.touch()
    hidden.rename(wheel)
    code, said = place.env()
    assert code == 0, said
    assert [line.partition("/.venv: ")[2] for line in said.splitlines()] == [
        "-r requirements.lock",
        "distsgd, in place",
    ]
    assert place.run(place.root / ".venv" / "bin" / "distsgd") == (0, "runs\n")
    assert place.packages().keys() == {"pip", "setuptools", "wanted"} & place.packages().keys()
    assert place.env() == (0, SILENT)

    # What the user does in it stays, also when tests and newer locks come.
    write_wheel(place.index, "mine", "1.0")
    write_wheel(place.index, "wanted", "1.5")
    place.install("mine", "wanted==1.5")
    assert place.env() == (0, SILENT)
    pip = place.packages()["pip"]
    code, said = place.env("--with", "test")
    assert code == 0, said
    assert (
        "/.venv: -r requirements-plots.lock -r requirements-cluster.lock -r requirements-test.lock"
        in said
    )
    assert "making" not in said
    found = place.packages()
    assert {"mine", "drawing", "joining", "trying"} <= found.keys()
    assert (found["pip"], found["wanted"]) == (pip, "1.5")
    assert [path.name for path in (place.root / ".venv" / "oldest-pip").iterdir()] == [
        "pip-23.2.1-py3-none-any.whl"
    ]
    check_models_added(place)
    check_nothing_to_do(place)

    place.lock("requirements.lock", "wanted", "2.0")
    place.lock("requirements-plots.lock", "drawing", "2.0")
    place.lock("requirements-models.lock", "learning", "2.0")
    assert place.env()[0] == 0
    found = place.packages()
    assert {found[name] for name in ("wanted", "drawing", "learning")} == {"2.0"}
    assert found["mine"] == "1.0"
    assert mark.exists()
    check_put_back(place)
    check_made_again_where_moved(place)


def check_models_added(place: Place) -> None:
    """In addition to what there is; where pip does not find them, it is said who has them."""
    (wheel := next(place.index.glob("learning-*"))).rename(hidden := place.index / "hidden")
    code, said = place.env("--with", "torch,jax")
    assert code != 0
    assert "torch's build for the CPU lies in PyTorch's own index" in said
    hidden.rename(wheel)
    code, said = place.env("--with", "jax,torch")
    assert code == 0, said
    assert [line.partition("/.venv: ")[2] for line in said.splitlines()] == [
        "-r requirements-models.lock",
        "distsgd, in place",
    ]
    assert {"mine", "drawing", "joining", "trying", "learning"} <= place.packages().keys()


def check_nothing_to_do(place: Place) -> None:
    """Each name brings what is there already."""
    assert place.env() == (0, SILENT)
    for name in ("plots", "cluster", "torch", "jax", "torch,jax", "jax,torch", "test"):
        assert place.env("--with", name) == (0, SILENT)


def check_put_back(place: Place) -> None:
    """What somebody took out is put back, in place."""
    mark = place.root / ".venv" / "mark"
    code, said = place.run(place.root / ".venv" / "bin" / "pip", "uninstall", "-y", "wanted")
    assert code == 0, said
    assert place.env()[0] == 0
    assert place.packages()["wanted"] == "2.0"
    assert mark.exists()


def check_made_again_where_moved(place: Place) -> None:
    """Its commands name the place where they were made."""
    moved = place.root.with_name("moved")
    place.root.rename(moved)
    place.root = moved
    code, said = place.env()
    assert code == 0, said
    assert "cannot be moved; making it again" in said
    assert place.run(moved / ".venv" / "bin" / "distsgd") == (0, "runs\n")
    assert place.env() == (0, SILENT)


def test_env_leaves_what_it_has_not_made(place: Place) -> None:
    code, said = place.run(place.bin / "python3.13", "-m", "venv", ".venv")
    assert code == 0, said
    before = sorted((place.root / ".venv").rglob("*"))
    code, said = place.env()
    assert code == 4
    assert "is not of scripts/env's making" in said
    assert "    distsgd itself, from this directory\n" in said
    assert "    wanted>=1, needed by distsgd: not installed\n" in said
    assert sorted((place.root / ".venv").rglob("*")) == before

    # What it says helps; the user may choose another version.
    commands = re.findall(r"^    (\.venv/bin/python -m .*)$", said, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        code, said = place.run(*command.split())
        assert code == 0, said
    write_wheel(place.index, "wanted", "1.5")
    place.install("wanted==1.5")
    place.lock("requirements.lock", "wanted", "2.0")
    assert place.env() == (0, SILENT)
    assert place.packages()["wanted"] == "1.5"
    code, said = place.env("--with", "plots")
    assert code == 4
    assert "drawing, needed by distsgd: not installed" in said
    assert "-r requirements.lock -r requirements-plots.lock" in said

    write_wheel(place.index, "wanted", "0.5")
    place.install("wanted==0.5")
    code, said = place.env()
    assert code == 4
    assert "wanted>=1, needed by distsgd: found 0.5" in said


def test_env_says_how_a_venv_without_pip_gets_one(place: Place) -> None:
    made = place.run(place.bin / "python3.13", "-m", "venv", "--without-pip", ".venv")
    assert made[0] == 0, made
    code, said = place.env()
    assert code == 4
    command = "    .venv/bin/python -m ensurepip\n"
    assert said.index("install that:\n") < said.index(command) < said.index("-m pip install")


def broken_link(venv: Path) -> None:
    venv.symlink_to("nowhere")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, broken_link])
def test_env_says_that_a_venv_without_python_is_in_the_way(
    place: Place, make: Callable[[Path], None]
) -> None:
    make(place.root / ".venv")
    code, said = place.env()
    assert code == 4
    assert "has no Python 3.11 to 3.14 that runs" in said
    assert "move .venv away" in said
    assert "pip install" not in said


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_env_says_what_it_takes(place: Place, option: str) -> None:
    code, said = place.env(option)
    assert code == 0
    assert "scripts/env [--with plots] [--with cluster] [--with torch,jax] [--with test]" in said
    assert not (place.root / ".venv").exists()


@pytest.mark.parametrize(
    "options", [("--with",), ("--with", "tests"), ("--with", "torch,"), ("plots",)]
)
def test_env_refuses_what_it_does_not_know(place: Place, options: tuple[str, ...]) -> None:
    code, said = place.env(*options)
    assert code == 2
    assert f'"{" ".join(options)}" is not known; takes --with plots' in said
    assert not (place.root / ".venv").exists()
