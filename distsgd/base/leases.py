"""One owner at a time of an object on storage, that shows that it lives by renewing it.

An object is taken, renewed and let go of by replacing it, which only who has seen its present
version can. No clocks of two machines are compared: an owner is gone when who waits has seen no
change for `LEASE_S`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from distsgd.base.conditional import ConditionalObject, Seen, Superseded
from distsgd.errors import CheckpointError, StorageError

LEASE_S = 30.0  # An owner that has not renewed for so long is gone.


@dataclass(frozen=True, slots=True)
class Owned:
    """What the object says of its owner.

    Attributes:
        owner: Who has it now, in words; "" for nobody.
        token: Of the process that wrote it, so that it knows its own.
        renewals: Grows while the owner lives.
    """

    owner: str = ""
    token: str = ""
    renewals: int = 0

    def encoded(self) -> bytes:
        """What is written."""
        raise NotImplementedError


def own_name() -> str:
    """This process as an owner: "NUMBER on HOST"."""
    return f"{os.getpid()} on {socket.gethostname()}"


R = TypeVar("R", bound=Owned)
Decode = Callable[[bytes], R]


def watch(
    target: ConditionalObject,
    seen: Seen,
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Seen | None:
    """What the object holds when it is not what was seen any more, or after `within_s`; blocks."""
    now: Seen | None = seen
    until = clock() + within_s
    while now is not None and now.data == seen.data and clock() < until:
        sleep(LEASE_S / 20)
        now = target.read()
    return now


class Lease(Generic[R]):
    """The right to replace an object, renewed by a thread of its own.

    Args:
        target: The object; it is taken, which blocks.
        record: What it says from then on.
        over: What was seen of it.
        decode: Reads what others have written. Raises CheckpointError.

    Attributes:
        record: What it says now.

    Raises:
        Superseded: Another was first.
        StorageError: The storage refuses, or does not answer.
    """

    def __init__(
        self, target: ConditionalObject, record: R, *, over: Seen | None, decode: Decode[R]
    ) -> None:
        self.record, self._target, self._decode = record, target, decode
        self._seen = target.begin(record.encoded(), over=over)
        self._lock = threading.Lock()
        self._lost: Superseded | None = None
        self._is_ended = threading.Event()
        threading.Thread(target=self._keep, name="distsgd-lease", daemon=True).start()

    def check(self) -> None:
        """Raises Superseded where another has taken the object; costs nothing."""
        if self._lost is not None:
            raise self._lost

    def write(self, change: Callable[[R], R]) -> R:
        """Make the object say what `change` makes of what it says; blocks.

        Returns:
            What it said before.

        Raises:
            Superseded: Another has taken it, says how; it is as it was.
            StorageError: The storage refuses, or does not answer.
        """
        assert not self._is_ended.is_set(), "only an owner writes"
        with self._lock:
            self.check()
            before = self.record
            self._write(replace(change(before), renewals=before.renewals + 1))
            return before

    def end(self) -> None:
        """Let go of the object, if it is still this process's; blocks."""
        self._is_ended.set()
        with self._lock, contextlib.suppress(StorageError, Superseded):
            if self._lost is None and self.record.owner:
                self._write(replace(self.record, owner=""))

    def _keep(self) -> None:
        while not self._is_ended.wait(LEASE_S / 3):
            with self._lock, contextlib.suppress(StorageError, Superseded):
                if self._is_ended.is_set() or self._lost is not None or not self.record.owner:
                    return
                self._write(replace(self.record, renewals=self.record.renewals + 1))

    def _write(self, record: R) -> None:
        data, until = record.encoded(), time.monotonic() + LEASE_S
        while True:
            try:
                self._seen = self._target.write(data, over=self._seen)
            except Superseded:
                owner = self._own_write().owner
                if time.monotonic() >= until:
                    reason = (
                        f"is still written over by process {owner}, this one, after {LEASE_S:g} s; "
                        "a copy of it writes too, or the storage repeats old requests (end the "
                        "copy, then resume)"
                    )
                    raise StorageError(self._target.location.address, reason) from None
            else:
                self.record = record
                return

    def _own_write(self) -> R:
        """What it says by an own write whose answer was lost, to continue from.

        Raises Superseded where it is another's.
        """
        now = self._target.read()
        if now is None:
            raise self._lose("it is gone")
        try:
            found = self._decode(now.data)
        except CheckpointError as error:
            raise self._lose(error.reason) from error
        if found.token != self.record.token:
            who = f"process {found.owner}" if found.owner else "another, which has ended since,"
            raise self._lose(f"{who} has taken it over")
        self._seen = now
        return found

    def _lose(self, how: str) -> Superseded:
        self._lost = Superseded(how)
        return self._lost
