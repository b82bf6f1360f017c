"""Ctrl-C and SIGTERM: the first asks the trainer to stop, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, signals become a request to stop; the old handlers come back after it."""

    def __init__(self, request_stop: Callable[[], None], say: Callable[[str], None]) -> None:
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
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._request_stop()
