"""What a node does of a task: `distsgd.parallel.launch.tasks` sends it there."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import distsgd.base.runnable_kernel  # noqa: F401 -- before all that imports numpy.
from distsgd.base.work import Stop, do_work
from distsgd.errors import ClusterError
from distsgd.parallel import numerics
from distsgd.parallel.numerics import Profile

LOOK_S = 0.5


class NotSharedError(ClusterError):
    """Node `host` does not have the file `path` of the process that sends the tasks."""

    def __init__(self, host: str, path: str) -> None:
        super().__init__(host, path)
        self.host, self.path = host, path

    def __str__(self) -> str:
        return (
            f"node {self.host} does not see {self.path}, or sees another file there; put the "
            "experiment (--out), the cache (--cache-dir) and the rows ([data] path) on a disk that "
            "all nodes share"
        )


@dataclass(frozen=True, slots=True)
class Needs:
    """What a node must have in common with the process that sends the tasks.

    Attributes:
        session: A file of that process; once it is gone, tasks are to end.
        files: Path, size and time of change of each, as the cache knows its sources.
        profile: It computes the same bits in `dtype`.
    """

    session: Path
    files: tuple[tuple[str, int, int], ...]
    profile: Profile
    dtype: str

    @classmethod
    def of(cls, session: Path, files: Iterable[Path], dtype: str) -> Self:
        """What this process has. `OSError` passes through."""
        stamps = tuple((str(file), *_stamp(file)) for file in files)
        return cls(session, stamps, numerics.profile(dtype), dtype)

    def check(self) -> None:
        """Raises NotSharedError, NumericsError where this node has something else."""
        if _is_gone(self.session):
            raise NotSharedError(socket.gethostname(), str(self.session))
        for path, *stamp in self.files:
            try:
                is_same = [*_stamp(Path(path))] == stamp
            except OSError:
                is_same = False
            if not is_same:
                raise NotSharedError(socket.gethostname(), path)
        numerics.check_same(self.profile, self.dtype)


def do_task(function: str, task: str, needs: Needs) -> str:
    """`do_work`, with the `task` in JSON; it is asked to end once the session has.

    Raises:
        NotSharedError, NumericsError: This node cannot do it.
        Exception: What the function raises and is none of ours.
    """
    needs.check()
    with _asked_without(needs.session) as stop:
        return do_work(function, json.loads(task), stop)


@contextmanager
def _asked_without(session: Path) -> Iterator[Stop]:
    """Asked to end when the file is gone.

    Not by Ray's `cancel`: of a task that is just ending, that may end the process that sent it.
    """
    stop, has_ended = Stop(), threading.Event()

    def watch() -> None:
        while not has_ended.wait(LOOK_S):
            if _is_gone(session):
                stop.ask()
                return

    thread = threading.Thread(target=watch, name="distsgd-session", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        has_ended.set()
        thread.join(LOOK_S)


def _is_gone(file: Path) -> bool:
    """Opened, since a shared disk asks its server then, and may remember a file otherwise."""
    try:
        file.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # The disk does not answer: that is no word of its owner.
        return False
    return False


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
