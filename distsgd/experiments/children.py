"""Work done by processes of its own, as many at once as there are cores.

A child is ``python -m MODULE``: it takes one JSON object a line from its standard input, answers
each with a line, and ends with its input, with its parent, and on SIGTERM as soon as it can. What
it finds it writes to files.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

from distsgd.errors import DistSGDError
from distsgd.experiments.plan import Piece
from distsgd.parallel.numerics import num_cores

LOOK_S = 0.2
END_TIMEOUT_S = 30.0  # To write a checkpoint.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Work:
    """What one child is to do: `piece` is what it makes, `task` is what it is told."""

    piece: Piece
    module: str
    task: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """Work that has ended: `failure` is "" or what the child said, or how the child ended."""

    piece: Piece
    failure: str


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
    """A place for a process that does one piece of work after the other of one module."""

    def __init__(self, looks: selectors.BaseSelector) -> None:
        self._looks = looks
        self._process: subprocess.Popen[str] | None = None
        self._module = ""
        self.work: Work | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def begin(self, work: Work) -> None:
        """Have it done: by the process that did the last one, where that is of the same module."""
        if self._process is None or self._module != work.module:
            self._end()
            self._start(work.module)
        assert self._process is not None
        assert self._process.stdin is not None
        self.work = work
        with suppress(BrokenPipeError):  # It has died; that is seen at its output.
            print(json.dumps(work.task), file=self._process.stdin, flush=True)

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

    def _start(self, module: str) -> None:
        self._module = module
        self._process = subprocess.Popen(  # noqa: S603 -- a module of ours.
            [sys.executable, "-m", module, str(os.getpid())],
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


def serve(do: Callable[[dict[str, Any]], None], on_terminate: Callable[[], object]) -> None:
    """What a child does: each task of its input in turn, until it ends or SIGTERM comes.

    Args:
        do: Does one. An error of ours is answered as one line; any other ends the child.
        on_terminate: Asks what is under way to end.
    """
    _die_with_parent(int(sys.argv[1]))
    is_asked = False

    def terminate(*_: object) -> None:
        nonlocal is_asked
        is_asked = True
        on_terminate()
        if not is_busy:
            sys.exit(0)

    is_busy = False
    signal.signal(signal.SIGTERM, terminate)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is no answer.
    while not is_asked and (line := sys.stdin.readline()):
        is_busy = True
        try:
            do(json.loads(line))
            failure = ""
        except DistSGDError as error:
            failure = " ".join(str(error).split())
        is_busy = False
        print(json.dumps(failure), file=answers, flush=True)


def _die_with_parent(parent: int) -> None:
    """A killed experiment leaves no process behind (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before.
        sys.exit(1)
