"""Ctrl-C and SIGTERM: the first asks the trainer to stop, the second stops at once.

Before training has begun there is nothing to wait for, and the first stops at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from distsgd.errors import StoppedAtOnce

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C ends what comes before training with the message and exit code of an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedAtOnce(has_begun=False) from None


class StopSignals:
    """While entered, signals become a request to stop; the old handlers come back after it.

    Args:
        request_stop: Passes the wish on; False where nothing has begun that would end by itself.
        say: Called with what a person should know.
    """

    def __init__(self, request_stop: Callable[[], bool], say: Callable[[str], None]) -> None:
        self._request_stop, self._say = request_stop, say
        self._asked = self._answered = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.keep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def keep(self) -> None:
        """Call it now and then: it takes the signals back, and answers the one that came.

        Starting Ray replaces the handler of SIGTERM. A handler itself must not print, since it may
        have interrupted a print.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) != self._on_signal:
                signal.signal(number, self._on_signal)
        if self._asked and not self._answered:
            self._answered = True
            self._say("stopping after this step, with a checkpoint; again to stop at once")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked or not self._request_stop():
            raise KeyboardInterrupt
        self._asked = True
