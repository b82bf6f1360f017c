"""What is installed, from a wheel and in place, runs beside a user's own files of common names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.tiny_index import ROOT

CONFIG = """
[data]
path = "rows.parquet"
label = "kind"
test_fraction = 0.2
[model]
layers = [{type = "dense", units = 3}]
loss = "softmax_cross_entropy"
[train]
epochs = 2
[parallel]
workers = 0
assignment = "all"
"""
SCRIPT = """
from distsgd import TrainConfig, Trainer
print(Trainer(TrainConfig.from_toml("c.toml"), run_dir="of-script").fit().metrics["steps"])
import distsgd, distsgd_workers
print(distsgd.__file__, distsgd_workers.__file__, sep="\\n")
"""
MINE = 'raise SystemExit("the user\'s own file was run")\n'


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and error, with `path` first where modules are looked for."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "PIP_"))}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout, done.stderr


def build(kind: str, source: Path, out: Path) -> Path:
    """A wheel or an sdist of the project in `source`."""
    code, _, said = run(
        sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out, cwd=source
    )
    assert code == 0, said
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the wheel is installed."""
    target = tmp_path_factory.mktemp("target")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target)
    code, _, said = run(*pip, wheel, cwd=target)
    assert code == 0, said
    return target


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's directory with rows, a configuration and a script."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = tmp_path / "place"
    place.mkdir()
    x = np.arange(400.0).reshape(100, 4) % 7
    rows = {f"x{i}": x[:, i] for i in range(4)} | {"kind": np.arange(100) % 3}
    pq.write_table(pa.table(rows), place / "rows.parquet")
    (place / "c.toml").write_text(CONFIG)
    (place / "s.py").write_text(SCRIPT)
    return place


def a_module(place: Path) -> None:
    (place / "workers.py").write_text(MINE)


def a_package(place: Path) -> None:
    (place / "workers").mkdir()
    (place / "workers" / "__init__.py").write_text(MINE)
    (place / "workers" / "gradient_worker.py").write_text(MINE)


def a_folder(place: Path) -> None:
    (place / "workers").mkdir()
    (place / "workers" / "notes.txt").write_text("mine")


Beside = Callable[[Path], None]


def top_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name.split("/")[0] for name in archive.namelist()}


def test_wheel_holds_the_two_packages_only(wheel: Path, target: Path) -> None:
    packages = {name for name in top_names(wheel) if not name.endswith(".dist-info")}
    assert packages == {"distsgd", "distsgd_workers"}
    for name, source in (("distsgd", ROOT), ("distsgd_workers", ROOT / "workers")):
        theirs = {path.relative_to(source) for path in (source / name).rglob("*.py")}
        assert {path.relative_to(target) for path in (target / name).rglob("*.py")} == theirs


def test_wheel_of_the_sdist_holds_the_same_files(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build("wheel", source, tmp_path / "again")
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(again) as theirs:
        assert ours.namelist() == theirs.namelist()
    for name in (f"requirements{it}.lock" for it in ("", "-plots", "-cluster", "-models", "-test")):
        assert (source / name).read_text() == (ROOT / name).read_text()


@pytest.mark.parametrize(
    ("beside", "is_wheel"),
    [(a_module, True), (a_package, True), (a_package, False), (a_folder, False)],
)
def test_training_runs_beside_a_users_own_workers(
    place: Path, target: Path, beside: Beside, *, is_wheel: bool
) -> None:
    beside(place)
    path = target if is_wheel else None
    code, out, said = run(sys.executable, "s.py", cwd=place, path=path)
    assert code == 0, said
    steps, ours, workers = out.splitlines()
    assert int(steps) > 0
    assert Path(ours).parents[1] == (target if is_wheel else ROOT)
    assert Path(workers).parents[1] == (target if is_wheel else ROOT / "workers")
    train = ("-m", "distsgd", "train", "c.toml", "--run-dir", "of-module", "--quiet")
    code, _, said = run(sys.executable, *train, cwd=place, path=path)
    assert code == 0, said
    first, second = (
        json.loads((place / name / "result.json").read_text())["weights_digest"]
        for name in ("of-script", "of-module")
    )
    assert first == second


def test_workers_of_ray_run_beside_a_users_own_workers_from_a_path_with_spaces(
    place: Path, target: Path
) -> None:
    a_package(place)
    a_module(place)
    (place / "my env").symlink_to(sys.prefix)
    python = place / "my env" / "bin" / "python"
    train = ("-m", "distsgd", "train", "c.toml", "--workers", "2", "--run-dir", "run", "--quiet")
    code, _, said = run(python, *train, cwd=place, path=target)
    assert code == 0, said
    assert (place / "run" / "result.json").exists()


@pytest.mark.parametrize("name", ["distsgd.py", "distsgd/__init__.py"])
def test_users_own_distsgd_is_refused_before_ray_starts(place: Path, name: str) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text(MINE)
    program = Path(sys.executable).with_name("distsgd")
    train = ("train", "c.toml", "--workers", "2", "--run-dir", "run", "--quiet")
    code, _, said = run(program, *train, cwd=place)
    assert code == 4
    assert f"{place / name} would hide the package distsgd in {ROOT / 'distsgd'}" in said
    code, _, said = run(program, *train[:2], "--workers", "0", "--run-dir", "alone", cwd=place)
    assert code == 0, said
