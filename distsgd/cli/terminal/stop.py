"""Ctrl-C, SIGTERM and SIGHUP (a terminal that closes): how each command ends on them.

Training: the first asks the trainer to stop after its step, a second Ctrl-C or SIGTERM stops at
once. All else, and training before its first step, stops at once. A signal that is ignored from
outside (``nohup``) stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from distsgd.cli.terminal.signals import heeded, was_held
from distsgd.errors import DistSGDError, Interrupted


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt inside, as Ctrl-C does, so that all is tidied."""
    before = {number: signal.getsignal(number) for number in heeded()}
    try:
        for number in before:
            signal.signal(number, _interrupt)
        if was_held():
            raise KeyboardInterrupt
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def stoppable(error: Callable[[], DistSGDError] = Interrupted) -> Iterator[None]:
    """A KeyboardInterrupt inside comes out as the error that says what it interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise error() from None


class StopSignals:
    """While entered, signals become a request to stop; the old handlers come back after it.

    Args:
        request_stop: Asks the work to stop; False where nothing has begun that would end by itself.
        say: Called with what a person should know.
        kept: What is kept of the work so far, for the message.
    """

    def __init__(
        self,
        request_stop: Callable[[], bool],
        say: Callable[[str], None],
        *,
        kept: str = ", with a checkpoint",
    ) -> None:
        self._request_stop, self._say, self._kept = request_stop, say, kept
        self._asked = self._answered = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in heeded()}
        self.keep()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def keep(self) -> None:
        """Call it now and then: it takes the signals back, and answers the one that came.

        Starting Ray replaces the handler of SIGTERM. A handler itself must not print, since it may
        have interrupted a print.
        """
        for number in self._before:
            if signal.getsignal(number) != self._on_signal:
                signal.signal(number, self._on_signal)
        if self._asked and not self._answered:
            self._answered = True
            self._say(f"stopping after this step{self._kept}; again to stop at once")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked and number == signal.SIGHUP:
            return  # A shell and the kernel both say that a terminal has closed; it counts once.
        if self._asked or not self._request_stop():
            raise KeyboardInterrupt
        self._asked = True
