"""What a server has to say, for the one who looks at the run. No I/O here."""

from __future__ import annotations

import threading
from collections import deque

MOST_KEPT = 1000


class MessageLog:
    """What the server has to say, numbered, so that each reader is told each message once.

    The newest `MOST_KEPT` are kept: a run with faults for days says many thousands of lines. Any
    thread may call.

    >>> log = MessageLog()
    >>> log.add("a"), log.add("b")
    (None, None)
    >>> log.after(1)
    (2, ('b',))
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[str] = deque(maxlen=MOST_KEPT)
        self._count = 0

    def add(self, text: str) -> None:
        """Say `text`."""
        with self._lock:
            self._kept.append(text)
            self._count += 1

    def after(self, known: int) -> tuple[int, tuple[str, ...]]:
        """How many messages there were, and those that came after the first `known`.

        Where some of these are no longer kept, the first says how many.
        """
        with self._lock:
            first_kept = self._count - len(self._kept)
            lost = max(0, first_kept - known)
            fresh = list(self._kept)[max(0, known - first_kept) :]
            count = self._count
        return count, ((f"{lost:,} messages were dropped here", *fresh) if lost else (*fresh,))
