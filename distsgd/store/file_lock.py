"""Locks that the kernel lets go of when their holder ends, however it ends (flock)."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable

_POLL_S = 0.02


def is_locked_within(
    descriptor: int,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Lock the open file or directory for this descriptor alone; blocks up to `timeout_s`.

    Returns:
        Whether it is locked now; closing the descriptor unlocks it. `OSError` passes through.
    """
    deadline = clock() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left_s = deadline - clock()
        else:
            return True
        if left_s <= 0.0:
            return False
        sleep(min(_POLL_S, left_s))
