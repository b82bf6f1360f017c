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
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from distsgd.experiments import child
from distsgd.experiments.plan import Piece
from distsgd.parallel.numerics import num_cores

LOOK_S = 0.2
END_TIMEOUT_S = 30.0  # To write a checkpoint.


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
    works: Iterable[Work], *, is_over: Callable[[], bool], most: int | None = None
) -> Iterator[Done]:
    """Do all `works`; blocks between two of them. Children are ended when the caller stops.

    Args:
        works: In the order in which they begin.
        is_over: Asked now and then; when it says so no more work begins, and what is under way is
            asked to end.
        most: Children at once; the cores of this process unless given.

    Yields:
        Each piece of work that has ended, in the order of their ends.
    """
    left = list(works)[::-1]
    if not left:
        return
    with ExitStack() as stack:
        looks = stack.enter_context(selectors.DefaultSelector())
        children = [stack.enter_context(_Child(looks)) for _ in range(most or num_cores())]
        while not is_over() and (left or any(child.work for child in children)):
            for child in children:
                if child.work is None and left:
                    child.begin(left.pop())
            for key, _ in looks.select(LOOK_S):
                yield key.data.ended()


class _Child:
    """A place for a process that does one piece of work after the other."""

    def __init__(self, looks: selectors.BaseSelector) -> None:
        self._looks = looks
        self._process: subprocess.Popen[str] | None = None
        self.work: Work | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def begin(self, work: Work) -> None:
        """Have it done: by the process that did the last one, where that lives."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self.work = work
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
        code = self._end()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return Done(work.piece, how)

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

    def _end(self) -> int:
        """End the process, if there is one; its exit code. Kills one that does not end in time."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        assert process.stdout is not None
        self._looks.unregister(process.stdout)
        process.terminate()
        try:
            process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode
