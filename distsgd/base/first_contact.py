"""The first question to a storage, with an end: some clients know neither deadline nor Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(timeout_s: float, ask: Callable[[], T]) -> T:
    """What `ask` returns or raises; blocks for `timeout_s` seconds at most, and Ctrl-C ends it.

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
        return answer.result(timeout_s)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
