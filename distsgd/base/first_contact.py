"""The first question to a storage, with an end: some clients know neither deadline nor Ctrl-C."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
QUIET_S = 3.0


def within(timeout_s: float, what: str, ask: Callable[[], T]) -> T:
    """What `ask` returns or raises; blocks for `timeout_s` seconds at most, and Ctrl-C ends it.

    After `QUIET_S` it warns that `what` has not answered yet.

    An `ask` that has no end continues in a thread that keeps no process alive.

    Raises:
        TimeoutError: There was no answer.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 -- raised again where it is waited for.
            answer.set_exception(error)

    threading.Thread(target=run, name="distsgd-first-contact", daemon=True).start()
    try:
        if not wait([answer], min(QUIET_S, timeout_s)).done and timeout_s > QUIET_S:
            text = f"{what} has not answered yet; it is waited for up to {timeout_s:g} s"
            warnings.warn(text, stacklevel=2)
        return answer.result(max(0.0, timeout_s - QUIET_S))
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
