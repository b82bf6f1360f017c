"""The log of injected faults in the run directory, shared by all processes: each fault once."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distsgd.base.files import lock_within
from distsgd.errors import CheckpointError

FILE = "faults.jsonl"
_LOCK_TIMEOUT_S = 30.0


class FaultLog:
    """One JSON object a line; a line that was cut by a crash is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: set[str] = set()  # Known to have happened: the file need not be read again.

    def claim(self, key: str, **facts: Any) -> bool:
        """Write down that `key` happens now; False where it has happened, or cannot be written.

        Durable when it returns; one process at a time.
        """
        if key in self._done:
            return False
        with self._locked() as descriptor:
            self._done.add(key)
            if descriptor is None:
                return False
            data = _read(descriptor)
            if any(entry.get("fault") == key for entry in _entries(data)):
                return False
            line = json.dumps({"fault": key, **facts, "time": time.time()}) + "\n"
            start = data.rfind(b"\n") + 1
            os.ftruncate(descriptor, start)
            os.pwrite(descriptor, line.encode(), start)
            os.fsync(descriptor)
            return True

    def read(self) -> list[dict[str, Any]]:
        """All that was injected, in order; empty where there is no log.

        Raises:
            CheckpointError: It cannot be read.
        """
        try:
            return list(_entries(self.path.read_bytes()))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(self.path, f"cannot be read: {error.strerror}") from error

    def names(self) -> list[str]:
        """The injected faults, in order. Raises CheckpointError."""
        return [str(entry.get("fault")) for entry in self.read()]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield None  # Another node, or a run directory that is gone.
            return
        try:
            yield descriptor if lock_within(descriptor, _LOCK_TIMEOUT_S) else None
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def kinds(names: Iterable[str]) -> dict[str, int]:
    """How often each kind of fault was injected; the most frequent first.

    >>> kinds(["kill worker 1 at step 3", "random 1 in 9 steps seed 0: kill worker at step 9"])
    {'kill worker': 2}
    """
    counts = Counter(" ".join(name.rpartition(": ")[2].split()[:2]) for name in names)
    return dict(counts.most_common())


def counted(names: Iterable[str]) -> str:
    """The same for people.

    >>> counted(["kill worker 1 at step 3"]), counted([])
    ('kill worker (1)', 'none')
    """
    return ", ".join(f"{kind} ({count})" for kind, count in kinds(names).items()) or "none"
