"""Judges inputs in a process of its own, which may die of them.

Usage: ``python -m tests.hostile.batch FORMAT SEED FIRST LAST``. On standard output, for each
input, its number when it begins, and ``outcome, seconds, MiB`` when it ends.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from distsgd.errors import DistSGDError
from tests.hostile.cases import FORMATS, Judge, Place
from tests.hostile.runs import KilledRun

_FENCE_BYTES = 8 << 30  # Of addresses: nothing on this machine is in danger.


def main() -> None:
    """Judge; every line is written at once, so that a death leaves the number of its input."""
    name, seed, first, last = sys.argv[1:]
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(prefix="hostile-") as directory:
        place = Path(directory)
        for part in ("work", "killed"):
            (place / part).mkdir()
        killed = KilledRun.make(place / "killed")
        judge = FORMATS[name](Place(place / "work", killed, int(seed)))
        _fence()
        for number in range(int(first), int(last)):
            _say(number)
            _say(_judged(judge, number))


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _judged(judge: Judge, number: int) -> tuple[str, float, float]:
    read = judge(number)
    _forget_peak()
    before, started = _peak_mib(), time.monotonic()
    try:
        read()
    except DistSGDError as error:
        outcome = "refused" if str(error) else f"{error!r} says nothing"
    except BaseException:  # noqa: BLE001 -- whatever it is, it is the finding.
        outcome = traceback.format_exc()
    else:
        outcome = "read"
    return outcome, time.monotonic() - started, _peak_mib() - before


def _fence() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _FENCE_BYTES, used + _FENCE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forget_peak() -> None:
    """The peak of resident memory counts from now."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
