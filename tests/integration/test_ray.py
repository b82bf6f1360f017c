"""The command line on a real Ray: the same bits through deaths and interruptions, and nothing left behind.

Each test starts the program as a user does, in processes of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)
LONG = ["train.steps=4000", "train.epochs=100000", "parallel.plan=all", "train.history_every=50"]


class Program:
    """One running ``distsgd train``, with what it writes and which processes belong to it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.mark = f"distsgd-test-{os.getpid()}-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "distsgd", "train", "digits.toml", "--json", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "DISTSGD_TEST_MARK": self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self, timeout_s: float = 120) -> tuple[int, dict[str, Any], str]:
        """Exit code, the object of the last line, and what was said."""
        out, said = self.process.communicate(timeout=timeout_s)
        lines = out.strip().splitlines()
        return self.process.returncode, json.loads(lines[-1]) if lines else {}, said

    def processes(self) -> dict[int, str]:
        """Living processes that this program started, itself too: they inherit its environment."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes():
                    found[int(path.name)] = (path / "cmdline").read_bytes().decode()
            except OSError:
                continue  # It has ended meanwhile.
        return found

    def actors(self, name: str) -> list[int]:
        """Process numbers of the actors of class `name`."""
        return [pid for pid, line in self.processes().items() if line.startswith(f"ray::{name}")]

    def wait_for_actors(self, num_workers: int) -> None:
        """Until the server and its workers are there."""
        wait_until(lambda: len(self.actors("WorkerActor")) == num_workers, 60, "worker actors")
        wait_until(lambda: self.actors("ServerActor"), 60, "the server actor")


def wait_until(is_true: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Look again and again, for events of other processes that send no notice."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory with the digits, a HOME of its own, and a short temporary directory."""
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as short:  # noqa: S108 -- Ray's limit.
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TMPDIR", short)
        subprocess.run(
            [sys.executable, "-m", "distsgd", "init", "digits"], cwd=tmp_path, check=True
        )
        yield tmp_path
        assert list(Path(short).iterdir()) == []


def settings(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]


def digest_alone(place: Path, *pairs: str) -> str:
    code, found, said = Program(place, "--workers", "0", *settings(*pairs)).result()
    assert code == 0, said
    return str(found["weights_digest"])


def listening_addresses(pids: set[int]) -> set[str]:
    """Addresses on which the processes listen over TCP, from the kernel's own tables."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].rpartition(":")[0])
    return found


def test_workers_on_ray_give_the_bits_of_one_process_and_leave_nothing(place: Path) -> None:
    alone = digest_alone(place, *LONG)
    program = Program(place, "--workers", "2", *settings(*LONG))
    program.wait_for_actors(2)
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    listening = listening_addresses(set(program.processes()))
    assert listening
    assert listening <= loopback
    code, found, said = program.result()
    assert code == 0, said
    assert found["weights_digest"] == alone
    assert found["num_workers"] == 2
    wait_until(lambda: not program.processes(), 20, "all processes to end")


def test_a_killed_worker_and_a_killed_server_change_no_bit(place: Path) -> None:
    steps = [*LONG, "train.steps=12000", "checkpoint.every_steps=500"]
    alone = digest_alone(place, *steps)
    program = Program(place, "--workers", "3", "--run-dir", "run", *settings(*steps))
    checkpoints = place / "run" / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("step-*")), 60, "a checkpoint")
    os.kill(program.actors("WorkerActor")[0], signal.SIGKILL)
    newest = max(checkpoints.glob("step-*"))
    wait_until(lambda: max(checkpoints.glob("step-*")) > newest, 60, "the next checkpoint")
    os.kill(program.actors("ServerActor")[0], signal.SIGKILL)
    code, found, said = program.result()
    assert code == 0, said
    assert "is lost" in said
    assert "going on after step" in said
    assert found["weights_digest"] == alone
    wait_until(lambda: not program.processes(), 20, "all processes to end")


def test_an_interrupted_run_ends_with_six_and_resumes_with_other_workers(place: Path) -> None:
    alone = digest_alone(place, *LONG)
    program = Program(place, "--workers", "2", "--run-dir", "run", *settings(*LONG))
    program.wait_for_actors(2)
    program.process.send_signal(signal.SIGINT)
    code, found, said = program.result()
    assert code == 6, said
    assert found["status"] == "interrupted"
    wait_until(lambda: not program.processes(), 20, "all processes to end")
    arguments = ["--workers", "0", "--run-dir", "run", "--resume", "auto", *settings(*LONG)]
    code, found, said = Program(place, *arguments).result()
    assert code == 0, said
    assert found["weights_digest"] == alone


def test_after_a_killed_driver_everything_ends_and_a_prompt_resume_gives_the_same_bits(
    place: Path,
) -> None:
    steps = [*LONG, "train.steps=20000", "checkpoint.every_steps=500"]
    alone = digest_alone(place, *steps)
    program = Program(place, "--workers", "2", "--run-dir", "run", *settings(*steps))
    checkpoints = place / "run" / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("step-*")), 60, "a checkpoint")
    program.process.kill()
    program.process.communicate(timeout=10)
    arguments = ["--workers", "2", "--run-dir", "run", "--resume", "auto", *settings(*steps)]
    code, found, said = Program(place, *arguments).result()
    assert code == 0, said
    assert found["weights_digest"] == alone
    wait_until(lambda: not program.processes(), 120, "the killed run's processes to end")
