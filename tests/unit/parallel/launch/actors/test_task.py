"""A task on its node: what that must have, and how it is asked to end."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distsgd.base.work import Stop
from distsgd.errors import NumericsError
from distsgd.parallel.launch.actors.task import Needs, NotSharedError, do_task

HERE = "tasks_of_this_test"


def end(task: Mapping[str, Any], stop: Stop) -> None:
    is_asked = threading.Event()
    stop.taken_by(is_asked.set)
    Path(task["session"]).unlink()
    assert is_asked.wait(30)


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


@pytest.fixture
def session(tmp_path: Path) -> Path:
    session = tmp_path / "session"
    session.touch()
    return session


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "seen"
    file.write_text("rows")
    return file


def test_task_ends_when_its_session_has(session: Path, file: Path) -> None:
    needs, task = Needs.of(session, [file], "float32"), json.dumps({"session": str(session)})
    assert do_task(f"{HERE}:end", task, needs) == ""
    with pytest.raises(NotSharedError, match="session"):
        do_task(f"{HERE}:end", task, needs)


@pytest.mark.parametrize("change", ["absent", "another", "touched"])
def test_node_that_sees_another_file_is_refused_by_name(
    session: Path, file: Path, change: str
) -> None:
    needs = Needs.of(session, [file], "float32")
    if change == "absent":
        file.unlink()
    elif change == "another":
        file.write_text("other rows")
    else:
        os.utime(file, ns=(1, 1))
    with pytest.raises(NotSharedError, match="on a disk that all nodes share") as found:
        do_task(f"{HERE}:end", "{}", needs)
    error = found.value
    assert (error.host, error.path) == (os.uname().nodename, str(file))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- as between processes.
    assert str(again) == str(error)


def test_node_with_other_bits_is_refused(session: Path, file: Path) -> None:
    needs = Needs.of(session, [file], "float32")
    other = replace(needs, profile=replace(needs.profile, probe="another"))
    with pytest.raises(NumericsError, match="computes other bits"):
        do_task(f"{HERE}:end", "{}", other)
