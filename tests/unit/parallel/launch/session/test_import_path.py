"""A user's own file that hides ours, or what we need, is refused before Ray starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq  # noqa: F401 -- as in a process that has another.

import distsgd
import distsgd_workers  # noqa: F401 -- a process that has not loaded it yet has a test of its own.
from distsgd.errors import ClusterError
from distsgd.parallel.launch.nodes.check import examine_ray
from distsgd.parallel.launch.session.import_path import refuse_shadowing

WORKER = "distsgd_workers.gradient_worker:GradientWorker"


def module(directory: Path, name: str) -> None:
    (directory / f"{name}.py").write_text("")


def package(directory: Path, name: str) -> None:
    (directory / name).mkdir()
    (directory / name / "__init__.py").write_text("")


def folder(directory: Path, name: str) -> None:
    """A plain folder, as a clone of this repository is: it holds packages, and is none."""
    package(directory, "clone")
    (directory / "clone").rename(directory / "clone2")
    (directory / name).mkdir()
    (directory / "clone2").rename(directory / name / name)
    (directory / name / "notes.txt").write_text("mine")


Make = Callable[[Path, str], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's directory, not on the path, and another that is the current one."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", [str(here / "program")])
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def put_current(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def put_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(place))


def put_first_as_link(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = place.with_name("link")
    link.symlink_to(place)
    monkeypatch.syspath_prepend(str(link))


def put_last_beside_the_script(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    monkeypatch.setattr(sys, "argv", [str(place / "script.py")])


PUTS = (put_current, put_first, put_first_as_link, put_last_beside_the_script)
Put = Callable[[Path, pytest.MonkeyPatch], None]


@pytest.mark.parametrize("name", ["distsgd", "distsgd_workers", "numpy", "zmq"])
@pytest.mark.parametrize("make", [module, package])
@pytest.mark.parametrize("put", PUTS)
def test_a_file_that_hides_what_is_needed_is_refused_wherever_ray_would_find_it_first(
    place: Path, monkeypatch: pytest.MonkeyPatch, put: Put, make: Make, name: str
) -> None:
    put(place, monkeypatch)
    refuse_shadowing(WORKER)
    make(place, name)
    with pytest.raises(ClusterError, match=f"{place}/{name}[./].*would hide the package {name} in"):
        refuse_shadowing(WORKER)


@pytest.mark.parametrize("make", [module, package, folder])
@pytest.mark.parametrize("put", PUTS)
def test_the_name_workers_belongs_to_the_user(
    place: Path, monkeypatch: pytest.MonkeyPatch, put: Put, make: Make
) -> None:
    put(place, monkeypatch)
    make(place, "workers")
    refuse_shadowing(WORKER)


@pytest.mark.parametrize("put", PUTS)
def test_a_plain_folder_of_our_name_hides_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, put: Put
) -> None:
    put(place, monkeypatch)
    folder(place, "distsgd")
    refuse_shadowing(WORKER)


def test_what_lies_behind_ours_on_the_path_hides_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(place, "distsgd")
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    refuse_shadowing(WORKER)


def test_our_own_repository_is_a_place_to_start_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distsgd.__file__
    monkeypatch.chdir(Path(distsgd.__file__).parents[1])
    refuse_shadowing(WORKER)


@pytest.mark.parametrize("make", [module, package])
def test_a_process_that_would_itself_load_another_worker_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    for name in [name for name in sys.modules if name.startswith("distsgd_workers")]:
        monkeypatch.delitem(sys.modules, name)
    refuse_shadowing(WORKER)
    for name in [name for name in sys.modules if name.startswith("distsgd_workers")]:
        monkeypatch.delitem(sys.modules, name)
    make(place, "distsgd_workers")
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(ClusterError, match=f"not found: {place}/distsgd_workers.* hides it"):
        refuse_shadowing(WORKER)
    monkeypatch.delitem(sys.modules, "distsgd_workers")


def test_a_worker_that_is_nowhere_is_refused() -> None:
    with pytest.raises(
        ClusterError, match=r"module none\.such is not found: none is not installed"
    ):
        refuse_shadowing("none.such:Worker")


def test_examining_ray_refuses_it_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    module(place, "distsgd")
    with pytest.raises(ClusterError, match="would hide"):
        examine_ray()
