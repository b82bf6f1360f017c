"""Does the head of the cluster still answer?

Ray notices after a minute that it does not, and ends the process then and there. Both the driver
and the server look for themselves, in time to save the run and to say how it continues. No Ray is
imported here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from distsgd.errors import HeadLostError

EVERY_S = 2.0
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # No settings.
# What Ray waits for a head to come back, in its own setting, and the part of it that we wait: what
# is left is for a checkpoint and for leaving.
_SETTING, _RAYS_OWN_S, _PART = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0, 1 / 3


def patience_s() -> float:
    """How long a head may be silent: a third of what Ray itself waits, 20 s unless set.

    >>> round(patience_s())
    20
    """
    try:
        return float(os.environ[_SETTING]) * _PART
    except (KeyError, ValueError):
        return _RAYS_OWN_S * _PART


class HeadWatch:
    """Greets the head now and then, in a thread of its own while entered.

    Args:
        address: host:port of the head, as Ray names it.
        on_lost: Called once, in that thread, when it was silent for too long.
        longest_s: What is too long; see `patience_s`.
        every_s: How often it is looked, and how long connecting and an answer may each take.
    """

    def __init__(
        self,
        address: str,
        on_lost: Callable[[], object] = lambda: None,
        *,
        longest_s: float | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        host, _, port = address.rpartition(":")
        self.address, self._place = address, (host.strip("[]"), int(port))
        self._on_lost, self._every_s = on_lost, every_s
        self._longest_s = patience_s() if longest_s is None else longest_s
        self._answered_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="distsgd-head", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self._every_s)

    def check(self) -> None:
        """Answers at once while the head does; else blocks for `every_s` seconds at most.

        Raises:
            HeadLostError: The head was silent for too long.
        """
        silent_s = time.monotonic() - self._answered_s
        # This process may have been stopped (Ctrl-Z) for as long, and the head never asked.
        if silent_s > self._longest_s and not self.answers():
            raise HeadLostError(self.address, round(silent_s))

    def confirm(self) -> None:
        """Make sure that the head answers now; blocks until it does, or was silent for too long.

        Raises:
            HeadLostError: As `check`.
        """
        while not self.answers():
            self.check()
            self._ended.wait(self._every_s)

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            if self.answers():
                continue
            try:
                self.check()
            except HeadLostError:
                self._on_lost()
                return

    def answers(self) -> bool:
        """Does its process answer now? Blocks for twice `every_s` seconds at most.

        A connection alone says little: the kernel of a process that is stopped takes it too. So the
        head is greeted as HTTP/2 is (RFC 9113, 3.4), on which Ray's protocol is built, and answers
        with its settings; one that wants TLS answers by ending the connection.
        """
        try:
            with socket.create_connection(self._place, timeout=self._every_s) as head:
                with contextlib.suppress(ConnectionError):
                    head.sendall(_GREETING)
                    head.recv(1)
                self._answered_s = time.monotonic()
                return True
        except OSError:
            return False
