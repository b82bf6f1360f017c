"""The command ``stop`` on a run of this machine: what it says of the end, and when it says it.

A process that waits stands for the driver; it is ended once it has been asked to stop.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distsgd.cli.control import facts
from distsgd.parallel.server.report import NOTHING
from distsgd.run.live_files import STATUS_FILE, STOP_FILE
from distsgd.store.run_directory import RunDirectory
from tests.integration.program import wait_until

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process


@pytest.fixture
def run(tmp_path: Path, driver: subprocess.Popen[bytes]) -> RunDirectory:
    found = RunDirectory.create(tmp_path / "run")
    found.config_path.write_text("{}")
    who = {"pid": driver.pid, "host": socket.gethostname()}
    shown = {"driver": who, "status": "training", "step": 7}
    (found.path / STATUS_FILE).write_text(json.dumps(shown))
    return found


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("interrupted", 0, "interrupted, with a checkpoint"),
        ("done", 0, "done, before it could be stopped"),
        ("diverged", 0, "diverged, before it could be stopped"),
        (None, 4, "it ended without saying how"),
    ],
)
def test_stop_says_how_the_run_ended_and_claims_nothing_else(
    command: Command,
    run: RunDirectory,
    driver: subprocess.Popen[bytes],
    status: str | None,
    code: int,
    words: str,
) -> None:
    def end() -> None:
        wait_until((run.path / STOP_FILE).exists, 30, "the wish to stop")
        if status is not None:
            run.write_json(run.result_path, {"status": status, "steps": 8, "epochs": 1.0})
        driver.communicate(timeout=30)

    thread = threading.Thread(target=end)
    thread.start()
    found = command("stop", str(run.path))
    thread.join(30)
    assert found[0] == code
    assert words in found[2]
    assert ("with a checkpoint" in found[2]) == (status == "interrupted")


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, "0"),
        ({"num_workers": 2, "wanted_workers": 2, "nodes": {"a": [0, 1]}}, "2 (a: 0, 1)"),
        ({"num_workers": 2, "wanted_workers": 1}, "2"),  # One is about to leave.
        ({"num_workers": 1, "wanted_workers": 6, "nodes": {"a": [0]}}, "1 of 6 (a: 0)"),
        ({"num_workers": 1, "wanted_workers": 6, "no_room": "0 free"}, "1 of 6; 0 free"),
    ],
)
def test_workers_are_those_there_of_those_wanted(told: dict[str, object], shown: str) -> None:
    report = {**NOTHING, "run": "run", "status": "training", **told}
    assert dict(facts(report))["workers"] == shown
