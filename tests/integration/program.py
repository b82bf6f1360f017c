"""The program as a user starts it, in processes of its own, and what tests look at from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Program:
    """One running ``distsgd train``, with what it writes and which processes belong to it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.heard = ""
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

    def wait_for_words(self, words: str) -> None:
        """Until the program has said `words`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.heard += line
            if words in line:
                return
        raise AssertionError(f"it never said {words!r}: {self.heard}")

    def result(self, timeout_s: float = 120) -> tuple[int, dict[str, Any], str]:
        """Exit code, the object of the last line, and what was said."""
        if self.heard:  # What is left stands partly in a buffer, which `communicate` passes over.
            assert self.process.stderr is not None
            self.heard += self.process.stderr.read()
        out, said = self.process.communicate(timeout=timeout_s)
        said = self.heard + said
        lines = out.strip().splitlines()
        return self.process.returncode, json.loads(lines[-1]) if lines else {}, said

    def processes(self) -> dict[int, str]:
        """Living processes that this program started, itself too: they inherit its environment."""
        return processes_marked(self.mark)

    def actors(self, name: str) -> list[int]:
        """Process numbers of the actors of class `name`."""
        return [pid for pid, line in self.processes().items() if line.startswith(f"ray::{name}")]

    def wait_for_actors(self, num_workers: int) -> None:
        """Until the server and its workers are there."""
        wait_until(lambda: len(self.actors("WorkerActor")) == num_workers, 60, "worker actors")
        wait_until(lambda: self.actors("ServerActor"), 60, "the server actor")


def processes_marked(mark: str) -> dict[int, str]:
    """Living processes with `mark` in their environment, and their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes():
                found[int(path.name)] = (path / "cmdline").read_bytes().decode()
        except OSError:
            continue  # It has ended meanwhile.
    return found


def wait_until(is_true: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Look again and again, for events of other processes that send no notice."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def settings(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]


def digest_alone(place: Path, *pairs: str) -> str:
    code, found, said = Program(place, "--workers", "0", *settings(*pairs)).result()
    assert code == 0, said
    return str(found["weights_digest"])
