"""Work in processes of its own: how it ends, also where the parent or the child is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distsgd.experiments.children import Work, run_all
from distsgd.experiments.plan import Piece

CHILD = """
import os, select, signal
from pathlib import Path
from distsgd.errors import ConfigError

def do(task, stop):
    place = Path(task["place"])
    (place / f"{task['do']}.pid").write_text(str(os.getpid()))
    print("a library says something")
    if task["do"] == "refuse":
        raise ConfigError(["a is 1; must be 2"])
    if task["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task["do"] == "wait":
        os.mkfifo(place / "until")
        while not stop.is_asked:
            select.select([], [], [], 0.05)
        (place / "was_asked").touch()
    if task["do"] == "finish after wait":
        until((place / "until").exists)
    if task["do"] == "hang":
        os.mkfifo(place / "never")
        open(place / "never")
    if task["do"] in ("first", "second"):
        (place / f"{task['do']}.begun").touch()
        until(lambda: stop.is_asked)
        (place / f"{task['do']}.asked").touch()
        until(lambda: len(list(place.glob("*.asked"))) == 2)
        (place / f"{task['do']}.ended").touch()

def until(is_so):
    while not is_so():
        select.select([], [], [], 0.05)
"""
PARENT = """
import json, sys
from distsgd.experiments.children import Work, run_all
from distsgd.experiments.plan import Piece

task = json.loads(sys.argv[1])
list(run_all([Work(Piece("learning", 1, "wait"), "one_child:do", task)], is_over=lambda: False))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "one_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def work(place: Path, do: str) -> Work:
    return Work(Piece("learning", 1, do), "one_child:do", {"do": do, "place": str(place)})


def never() -> bool:
    return False


def test_each_end_is_told(place: Path) -> None:
    works = [work(place, do) for do in ("finish", "refuse", "die")]
    done = {it.piece.name: it.failure for it in run_all(works, is_over=never)}
    assert done == {
        "finish": "",
        "refuse": "a is 1; must be 2",
        "die": "killed by SIGKILL",
    }


def test_one_process_does_work_after_work_until_it_dies(place: Path) -> None:
    works = [work(place, do) for do in ("finish", "refuse", "die", "again")]
    assert len(list(run_all(works, is_over=never, most=1))) == 4
    pids = [(place / f"{do}.pid").read_text() for do in ("finish", "refuse", "die", "again")]
    assert pids[0] == pids[1] == pids[2] != pids[3]


def test_children_are_asked_to_end_when_the_time_is_over(place: Path) -> None:
    until = place / "until"
    done = list(run_all([work(place, "wait"), work(place, "finish")], is_over=until.exists, most=1))
    assert [it.piece.name for it in done] == []
    assert (place / "was_asked").exists()
    assert not (place / "finish.pid").exists()


def test_children_end_with_the_one_who_no_longer_asks(place: Path) -> None:
    works = [work(place, "wait"), work(place, "finish after wait")]
    found: Iterator[object] = run_all(works, is_over=never, most=2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert (place / "was_asked").exists()
    assert not Path(f"/proc/{(place / 'wait.pid').read_text()}").exists()


def test_children_are_asked_to_end_all_at_once(place: Path) -> None:
    """Each of the two ends when the other was asked as well."""

    def have_begun() -> bool:
        return len(list(place.glob("*.begun"))) == 2

    works = [work(place, do) for do in ("first", "second")]
    assert list(run_all(works, is_over=have_begun, most=2)) == []
    assert len(list(place.glob("*.ended"))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from /proc")
def test_a_child_that_hangs_is_killed_and_the_next_work_is_done(place: Path) -> None:
    works = [work(place, "hang"), work(place, "die"), work(place, "finish")]
    done = {
        it.piece.name: it.failure for it in run_all(works, is_over=never, most=1, idle_timeout_s=3)
    }
    assert done == {
        "hang": "killed: it used no processor for 3 s",
        "die": "killed by SIGKILL",
        "finish": "",
    }


def test_a_killed_experiment_leaves_no_child(place: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            json.dumps({"do": "wait", "place": str(place)}),
        ]
    )
    until = place / "until"
    while not until.exists():
        assert parent.poll() is None
    pid = int((place / "wait.pid").read_text())
    descriptor = os.pidfd_open(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    ended, _, _ = select.select([descriptor], [], [], 30.0)
    os.close(descriptor)
    assert ended, f"child {pid} outlived its parent by 30 s"
