"""Locks that the kernel lets go of when their holder ends, however it ends (flock)."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable

_POLL_S = 0.02


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock the open file or directory, alone or `shared` with others of that kind.

    Returns:
        Whether it is locked now; closing the descriptor unlocks it. `OSError` passes through.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_within(
    descriptor: int,
    timeout_s: float,
    *,
    shared: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """As `try_lock`, again and again for up to `timeout_s` seconds; blocks."""
    deadline = clock() + timeout_s
    while not try_lock(descriptor, shared=shared):
        left_s = deadline - clock()
        if left_s <= 0.0:
            return False
        sleep(min(_POLL_S, left_s))
    return True
