"""Processes as the kernel shows them: those with a mark, memory and open files. Linux only."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

_PROC = Path("/proc")


def marked_processes(mark: str) -> dict[int, str]:
    """Living processes with ``NAME=value`` in the environment they were started with.

    Returns:
        Command lines by process number; those of other users cannot be seen.
    """
    found = {}
    for path in _PROC.glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(path.name)] = line.strip()
        except OSError:
            continue  # It has ended meanwhile, or belongs to another user.
    return found


class Gauge:
    """Memory and open files of processes over time, each compared with itself in the same state.

    What a process does decides what it holds: a driver that trains by itself, without workers, has
    the arrays of a worker besides. So a look says in which state it found the process, and growth
    is what one state gained from early to late.
    """

    def __init__(self) -> None:
        self._samples: dict[tuple[int, Hashable], list[tuple[int, int]]] = {}

    def look(self, pid: int, state: Hashable = None) -> None:
        """Look at process `pid`, which is in `state`; one that has ended is passed over."""
        try:
            pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
            files = len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208 -- one call, often.
        except (OSError, IndexError):
            return
        found = (pages * os.sysconf("SC_PAGE_SIZE"), files)
        self._samples.setdefault((pid, state), []).append(found)

    def growth(self) -> tuple[int, int]:
        """Bytes and open files gained from the second quarter of a process's looks to the last.

        The largest over all processes and states; the first quarter is the start in that state.
        """
        most = (0, 0)
        for samples in self._samples.values():
            quarter = len(samples) // 4
            if not quarter:
                continue
            early, late = samples[quarter : 2 * quarter], samples[-quarter:]
            bytes_, files = (
                max(one[i] for one in late) - max(one[i] for one in early) for i in (0, 1)
            )
            most = max(most[0], bytes_), max(most[1], files)
        return most
