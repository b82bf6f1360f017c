"""A run on object storage: its files, one pointer that names them, and who may write.

In it::

    s3://bucket/runs/a/
      RUN.json                 the pointer: owner, fence, and every file's objects and checksums
      objects/<fence>-<n>-...  what the files hold, under names that are never used twice

A file exists where the pointer names it, and the pointer is replaced as a whole by who has seen
its present version. So a checkpoint appears whole or not at all, and the lease and the commit are
one thing: an owner that was superseded fails at its next write, before anything becomes visible.
A file that only grows is kept in pieces, joined when it is read.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from distsgd.base import leases
from distsgd.base.conditional import ConditionalObject, Seen, Superseded
from distsgd.base.files import make_private_directory
from distsgd.base.leases import Lease
from distsgd.base.locations import Location, StoredFile
from distsgd.errors import CheckpointError, RunError, StorageError
from distsgd.store.download import bring_up
from distsgd.store.pointer import (
    DEATHS,
    OBJECTS,
    POINTER,
    Files,
    Pointer,
    is_leftover,
    objects_of,
)
from distsgd.store.upload import Upload

_MOST_FETCHES = 10  # Of a run that is published twice during each.


class RemoteRun:
    """The run at an address.

    Args:
        location: Where it is.
        clock: Seconds.
        sleep: Waits so many of them.
    """

    def __init__(
        self,
        location: Location,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.location = location
        self._clock, self._sleep = clock, sleep
        self._object = ConditionalObject(location / POINTER)

    @property
    def weakness(self) -> str:
        """Why a second owner is not kept out for certain; "" where it is."""
        return self._object.weakness

    def exists(self) -> bool:
        """Whether it is a run; blocks. Raises StorageError."""
        return self._object.read() is not None

    def look(self) -> Pointer | None:
        """What its pointer says now, None where there is no run; blocks. Raises StorageError."""
        seen = self._object.read()
        return None if seen is None else self._pointer(seen)

    def living_owner(self) -> str | None:
        """Who has it, once it has renewed; None where nobody has, or does for half of `LEASE_S`.

        Blocks. Raises RunError where there is no run, StorageError.
        """
        first = self._seen()
        if not self._pointer(first).owner:
            return None
        now = self._watch(first, leases.LEASE_S / 2)
        return None if now.data == first.data else self._pointer(now).owner or None

    def fetch(self, into: Path, fetched: Files | None = None) -> Path:
        """Write its files below `into`, each checked; blocks.

        Args:
            into: A directory of its own.
            fetched: What lies there by earlier calls, which is kept; brought up to date.

        Raises:
            RunError: There is no run.
            CheckpointError: A file is damaged; names it.
            StorageError: The storage refuses, or does not answer; or it changes faster than it is
                read.
        """
        make_private_directory(into)
        fetched = {} if fetched is None else fetched
        for _ in range(_MOST_FETCHES):
            pointer = self._pointer(self._seen())
            try:
                bring_up(into, self.location, pointer.files, fetched)
            except FileNotFoundError as gone:
                # Its owner has published twice since; where it has not, the object is lost.
                if objects_of(self._pointer(self._seen())) == objects_of(pointer):
                    raise CheckpointError(str(self.location), f"{gone} is missing") from None
                continue
            for name in ("checkpoints", "history"):
                make_private_directory(into / name)
            return into
        reason = (
            f"is published faster than it is read: {_MOST_FETCHES} times it had changed before it "
            "was fetched (read it later, or from nearer, or have checkpoints more rarely)"
        )
        raise StorageError(self.location.address, reason)

    def create(self, directory: Path) -> None:
        """Publish what a run begins with, where there is none; blocks.

        Raises:
            RunError: There is a run already.
            StorageError: The storage refuses, or does not answer.
        """
        empty = Pointer(token=secrets.token_hex(8))
        pointer = replace(empty, files=Upload(self.location, empty).files(directory))
        try:
            self._object.begin(pointer.encoded(), over=None)
        except Superseded:
            self._remove(objects_of(pointer))
            raise RunError(self.location.address, "another process began this run") from None

    def withdraw(self, beginning: frozenset[str]) -> None:
        """Remove a run that has no owner, and no file but those it begins with; blocks.

        Args:
            beginning: Which files and directories a run begins with.
        """
        seen = self._object.read()
        if seen is None:
            return
        pointer = self._pointer(seen)
        if pointer.owner or not _has_just_begun(pointer, beginning):
            return
        last = replace(pointer, fence=pointer.fence + 1, owner="nobody: it is being removed")
        try:
            self._object.write(replace(last, token=secrets.token_hex(8)).encoded(), over=seen)
        except Superseded:
            return  # Another process has it by now.
        (self.location / POINTER).delete()
        self._remove(objects_of(pointer) | {DEATHS})

    def _remove(self, names: set[str]) -> None:
        for name in names:
            (self.location / name).delete()

    @contextlib.contextmanager
    def lease(
        self, owner: str, *, take_over: bool = False, session: str = ""
    ) -> Iterator[RunLease]:
        """Be the owner while the block runs; blocks up to `LEASE_S` and a little more before.

        Args:
            owner: Says who that is: "NUMBER on HOST" of a process.
            take_over: Whether an owner that may live is superseded at once.
            session: Of the training this is part of. An owner of the same session, which has died
                if this process was started in its place, is superseded at once; no other is.

        Raises:
            RunError: There is no run, or it has an owner that lives; names it.
            StorageError: The storage refuses, or does not answer.
        """
        seen = self._seen() if take_over else self._when_free(session)
        pointer = self._pointer(seen)
        mine = replace(pointer, fence=pointer.fence + 1, session=session)
        mine = replace(mine, owner=owner, token=secrets.token_hex(8), renewals=0)
        try:
            held = Lease(self._object, mine, over=seen, decode=self._decoded)
        except Superseded:
            raise self._taken(self._pointer(self._seen()).owner) from None
        try:
            self._sweep_leftovers(mine)
            yield RunLease(self.location, held)
        finally:
            held.end()

    def _sweep_leftovers(self, mine: Pointer) -> None:
        """Remove what owners before uploaded and no pointer names; what cannot be removed stays.

        None of them can make a pointer to it any more, and a reader whom it was named to finds
        another pointer when it looks again.
        """
        named = objects_of(mine)
        with contextlib.suppress(StorageError):
            now = (self.location / POINTER).stat()  # It was written just now, by the same clock.
            for stored in (self.location / OBJECTS).files():
                name = f"{OBJECTS}/{stored.location.name}"
                if name not in named and is_leftover(name, mine.fence, _age_s(stored, now)):
                    stored.location.delete()

    def _when_free(self, session: str) -> Seen:
        """The pointer when it has no owner, or one that is gone: its session's, or silent."""
        first = self._seen()
        pointer = self._pointer(first)
        owner = pointer.owner
        if not owner or (session and pointer.session == session):
            return first
        if self.weakness:
            raise self._taken(owner)
        now = self._watch(first, leases.LEASE_S)
        owner = self._pointer(now).owner
        if owner and now.data != first.data:
            raise self._taken(owner)
        return now

    def _watch(self, seen: Seen, within_s: float) -> Seen:
        now = leases.watch(self._object, seen, within_s, clock=self._clock, sleep=self._sleep)
        return self._present(now)

    def _taken(self, owner: str) -> RunError:
        reason = (
            f"is in use by process {owner}; one process at a time may train a run (wait for it, "
            "end it, choose another --run-dir, or supersede it with --take-over)"
        )
        return RunError(self.location.address, reason)

    def _seen(self) -> Seen:
        return self._present(self._object.read())

    def _present(self, seen: Seen | None) -> Seen:
        if seen is None:
            reason = "holds no RUN.json, so it is no run (see the address that train printed)"
            raise RunError(self.location.address, reason)
        return seen

    def _pointer(self, seen: Seen) -> Pointer:
        return self._decoded(seen.data)

    def _decoded(self, data: bytes) -> Pointer:
        return Pointer.decoded(data, self.location)


def _age_s(stored: StoredFile, now: StoredFile | None) -> float:
    """How much earlier it was written than `now`; 0 where that is not known."""
    if now is None or now.mtime_ns is None or stored.mtime_ns is None:
        return 0.0
    return (now.mtime_ns - stored.mtime_ns) / 1e9


def _has_just_begun(pointer: Pointer, beginning: frozenset[str]) -> bool:
    tops = {name.partition("/")[0] for name in pointer.files}
    return tops.isdisjoint({"checkpoints", "history"}) and tops <= beginning


class RunLease:
    """The right to write a run; made by `RemoteRun.lease`."""

    def __init__(self, location: Location, lease: Lease[Pointer]) -> None:
        self._location, self._lease = location, lease
        self._upload = Upload(location, lease.record)
        self._doomed: set[str] = set()  # Objects that only the pointer before named.

    def check(self) -> None:
        """Raises RunError where another has taken the run; costs nothing."""
        with self._errors():
            self._lease.check()

    def publish(self, directory: Path) -> None:
        """Make the files of `directory` those of the run; blocks.

        Raises:
            RunError: Another has taken the run; what was published is as it was.
            StorageError: The storage refuses, or does not answer; the same.
        """
        self.check()
        files = self._upload.files(directory)
        with self._errors():
            before = self._lease.write(lambda pointer: replace(pointer, files=files))
        self._upload.published(files)
        doomed, self._doomed = self._doomed, objects_of(before) - objects_of(self._lease.record)
        for name in doomed:  # No pointer names them any more; what cannot be removed stays.
            with contextlib.suppress(StorageError):
                (self._location / name).delete()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Superseded as how:
            reason = f"was this process's to train, and {how}; nothing more is written"
            raise RunError(self._location.address, reason) from None
