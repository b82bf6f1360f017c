"""Has inputs judged by processes that may die, and says which of them broke the promise.

The promise: a typed error of ours or the right result, within 10 s and 1 GiB.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

MOST_SECONDS = 10.0
MOST_MIB = 1024.0
_PATIENCE_S = 30.0  # Until a process that was started, or an input, says something.
_ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Tally:
    """What became of the inputs of one format; `failures` name theirs."""

    name: str
    read: int = 0
    refused: int = 0
    most_seconds: float = 0.0
    most_mib: float = 0.0
    failures: list[str] = field(default_factory=list)

    def take(self, number: int, outcome: str, seconds: float, mib: float, *, seed: int) -> None:
        """Count one input."""
        self.most_seconds, self.most_mib = max(self.most_seconds, seconds), max(self.most_mib, mib)
        self.read += outcome == "read"
        self.refused += outcome == "refused"
        broken = []
        if outcome not in {"read", "refused"}:
            broken.append(outcome)
        if seconds > MOST_SECONDS:
            broken.append(f"took {seconds:.1f} s")
        if mib > MOST_MIB:
            broken.append(f"took {mib:.0f} MiB")
        if broken:
            self.failures.append(f"{self.name}, seed {seed}, input {number}: {'; '.join(broken)}")


def judge(name: str, *, seed: int, first: int, last: int) -> Tally:
    """Inputs ``first`` to ``last - 1`` of a format; a new process goes on where one died."""
    tally = Tally(name)
    while first < last:
        first = _batch(tally, seed, first, last)
    return tally


def _batch(tally: Tally, seed: int, first: int, last: int) -> int:
    """Judge until the end or a death; the number to go on with."""
    arguments = [tally.name, str(seed), str(first), str(last)]
    command = [sys.executable, "-m", "tests.hostile.batch", *arguments]
    with (
        tempfile.TemporaryFile("w+") as said,
        tempfile.TemporaryDirectory(prefix="hostile-") as temporary,
        subprocess.Popen(
            command,
            cwd=_ROOT,
            env=_environment() | {"TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process,
    ):
        assert process.stdout is not None
        number, is_at_work, reason = first - 1, False, "the process ended"
        try:
            for value in _lines(process.stdout):
                if isinstance(value, int):
                    number, is_at_work = value, True
                else:
                    tally.take(number, *value, seed=seed)
                    is_at_work = False
        except TimeoutError:
            reason = f"no end after {_PATIENCE_S:g} s"
        finally:
            process.kill()
        if not is_at_work and number == last - 1:
            return last
        said.seek(0)
        code = process.wait()
        outcome = f"{reason} (exit code {code}): {said.read()[-2000:]}"
        tally.take(max(number, first), outcome, 0.0, 0.0, seed=seed)
        return max(number, first) + 1


def _lines(stream: IO[bytes]) -> Iterator[Any]:
    """JSON values as they come; TimeoutError where none comes in time."""
    rest = b""
    while True:
        ready, _, _ = select.select([stream], [], [], _PATIENCE_S)
        if not ready:
            raise TimeoutError
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from map(json.loads, lines)


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
