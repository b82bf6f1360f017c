"""Work done by processes of its own, as many at once as there are cores.

What they do: `distsgd.experiments.child`. On a cluster: `distsgd.experiments.cluster_tasks`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from distsgd.experiments import child
from distsgd.experiments.plan import Piece
from distsgd.parallel.numerics import num_cores

LOOK_S = 0.2
END_TIMEOUT_S = 30.0  # To write a checkpoint.
IDLE_TIMEOUT_S = 600.0  # Without any time of a processor: then it hangs.


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: `piece` is what it makes, `function` and `task` as `do_work` has them."""

    piece: Piece
    function: str
    task: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """Work that has ended: `failure` is "" or what the child said, or how the child ended."""

    piece: Piece
    failure: str


class RunAll(Protocol):
    """Does all works somewhere, as `run_all` does."""

    def __call__(self, works: Iterable[Work], *, is_over: Callable[[], bool]) -> Iterator[Done]:
        """See `run_all`."""


def run_all(
    works: Iterable[Work],
    *,
    is_over: Callable[[], bool],
    most: int | None = None,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> Iterator[Done]:
    """Do all `works`; blocks between two of them. Children are ended when the caller stops.

    Args:
        works: In the order in which they begin.
        is_over: Asked now and then; when it says so no more work begins, and what is under way is
            asked to end.
        most: Children at once; the cores of this process unless given.
        idle_timeout_s: After which a child is killed that used no processor so long (Linux).

    Yields:
        Each piece of work that has ended, in the order of their ends.
    """
    left = list(works)[::-1]
    if not left:
        return
    with ExitStack() as stack:
        looks = stack.enter_context(selectors.DefaultSelector())
        children = [_Child(looks, idle_timeout_s) for _ in range(most or num_cores())]
        stack.callback(_end_all, children)
        while not is_over() and (left or any(child.work for child in children)):
            for child in children:
                if child.work is None and left:
                    child.begin(left.pop())
            for key, _ in looks.select(LOOK_S):
                yield key.data.ended()
            for child in children:
                child.kill_if_idle()


def _end_all(children: Iterable[_Child]) -> None:
    """End them at the same time: each may have a checkpoint to write."""
    for one in children:
        one.ask_to_end()
    deadline_s = time.monotonic() + END_TIMEOUT_S
    for one in children:
        one.wait_for_end(deadline_s)


class _Child:
    """A place for a process that does one piece of work after the other."""

    def __init__(self, looks: selectors.BaseSelector, idle_timeout_s: float) -> None:
        self._looks, self._idle_timeout_s = looks, idle_timeout_s
        self._busy = _Busy(0.0, 0.0)
        self._is_idle = False
        self._process: subprocess.Popen[str] | None = None
        self.work: Work | None = None

    def begin(self, work: Work) -> None:
        """Have it done: by the process that did the last one, where that lives."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self.work, self._busy, self._is_idle = work, _Busy.of(self._process.pid), False
        with suppress(BrokenPipeError):  # It has died; that is seen at its output.
            told = {"function": work.function, "task": work.task}
            print(json.dumps(told), file=self._process.stdin, flush=True)

    def ended(self) -> Done:
        """What has become of the work, now that the process has answered, or has died."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self.work is not None
        work, self.work = self.work, None
        if answer := self._process.stdout.readline():
            return Done(work.piece, json.loads(answer))
        code = self.end()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if self._is_idle:
            how = f"killed: it used no processor for {self._idle_timeout_s:g} s"
        return Done(work.piece, how)

    def kill_if_idle(self) -> None:
        """Kill one that has work and hangs; its end is seen at its output."""
        if self._process is None or self.work is None:
            return
        now = _Busy.of(self._process.pid)
        if now.used_s != self._busy.used_s:
            self._busy = now
        elif now.at_s - self._busy.at_s > self._idle_timeout_s:
            self._is_idle = True
            self._process.kill()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- a module of ours.
            [sys.executable, "-m", child.__name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C at a terminal is for the experiment to answer.
        )
        assert self._process.stdout is not None
        self._looks.register(self._process.stdout, selectors.EVENT_READ, self)

    def ask_to_end(self) -> None:
        """Send SIGTERM, if there is a process."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> int:
        """End the process, if there is one; its exit code."""
        self.ask_to_end()
        return self.wait_for_end(time.monotonic() + END_TIMEOUT_S)

    def wait_for_end(self, deadline_s: float) -> int:
        """The exit code of the process, if there is one; kills one that has not ended by then."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        assert process.stdout is not None
        self._looks.unregister(process.stdout)
        try:
            process.communicate(timeout=max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode


class _Busy(NamedTuple):
    """When a process was looked at, and how many seconds of a processor it had used by then."""

    at_s: float
    used_s: float

    @classmethod
    def of(cls, pid: int) -> _Busy:
        """Of a process now. Where the system does not tell, it is always busy."""
        now_s = time.monotonic()
        with suppress(OSError):
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return cls(now_s, sum(map(float, after_name[11:13])) / os.sysconf("SC_CLK_TCK"))
        return cls(now_s, now_s)
