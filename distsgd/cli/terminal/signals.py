"""Signals of the whole process, before its command is known and after it has ended.

While commands run: `stop`. Nothing heavy is imported here.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_CODE = 6  # Of `Interrupted`; its module would be imported first.
_held: list[int] = []


def heeded() -> list[signal.Signals]:
    """The signals that end this process; only its main thread may say what they do."""
    if threading.current_thread() is not threading.main_thread():
        return []
    # Python itself ignores a Ctrl-C that a shell ignores for what runs in its background; it is
    # sent on purpose then, so it is heeded.
    hang_up = signal.getsignal(signal.SIGHUP)
    return [one for one in SIGNALS if one != signal.SIGHUP or hang_up != signal.SIG_IGN]


def hold() -> None:
    """From now on a signal waits until a command takes it (`was_held`); a second ends the process.

    An import that is broken off halfway fails in any way, most of them with a traceback.
    """
    for number in heeded():
        signal.signal(number, _hold)


def _hold(number: int, _frame: FrameType | None) -> None:
    if _held and number != signal.SIGHUP:  # A terminal that closes may say so twice.
        os.write(2, b"interrupted: stopped before its end\n")
        os._exit(EXIT_CODE)
    _held.append(number)


def was_held() -> bool:
    """Whether a signal waits; it is taken by this."""
    waits = bool(_held)
    _held.clear()
    return waits


def end_with(code: int) -> None:
    """All is done and said: from now on a signal ends the process at once, with `code`."""

    def end(_number: int, _frame: FrameType | None) -> None:
        os._exit(code)

    for number in heeded():
        signal.signal(number, end)
    # When Python has put its handlers away, the kernel would end it in its own way.
    atexit.register(_ignore, heeded())


def _ignore(numbers: list[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
