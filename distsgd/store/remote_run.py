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
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from distsgd.base.files import as_run_error, make_private_directory
from distsgd.base.locations import Location
from distsgd.errors import CheckpointError, RunError, StorageError
from distsgd.store.conditional import ConditionalObject, Seen, Superseded
from distsgd.store.pointer import OBJECTS, POINTER, Piece, Pointer, is_leftover, objects_of
from distsgd.store.upload import Upload

Files = dict[str, tuple[Piece, ...]]  # The pieces of each file, by its path in the run.
LEASE_S = 30.0  # An owner that has not renewed for so long is gone.


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
    def is_atomic(self) -> bool:
        """Is a second owner kept out for certain?"""
        return self._object.is_atomic

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
        first = now = self._seen()
        until = self._clock() + LEASE_S / 2
        while self._pointer(now).owner and self._clock() < until:
            self._sleep(LEASE_S / 20)
            now = self._seen()
            if now.data != first.data:
                return self._pointer(now).owner or None
        return None

    def fetch(self, into: Path, fetched: Files | None = None) -> Path:
        """Write its files below `into`, each checked; blocks.

        Args:
            into: A directory of its own.
            fetched: What lies there by earlier calls, which is kept; brought up to date.

        Raises:
            RunError: There is no run.
            CheckpointError: A file is damaged; names it.
            StorageError: The storage refuses, or does not answer.
        """
        make_private_directory(into)
        fetched = {} if fetched is None else fetched
        while True:
            pointer = self._pointer(self._seen())
            try:
                self._bring_up(into, pointer, fetched)
            except FileNotFoundError as gone:
                # Its owner has published twice since; where it has not, the object is lost.
                if objects_of(self._pointer(self._seen())) == objects_of(pointer):
                    raise CheckpointError(str(self.location), f"{gone} is missing") from None
                continue
            for name in ("checkpoints", "history"):
                make_private_directory(into / name)
            return into

    def _bring_up(self, into: Path, pointer: Pointer, fetched: Files) -> None:
        """Have below `into` what `pointer` names, and nothing else that was fetched before."""
        for name, pieces in pointer.files.items():
            if fetched.get(name) != pieces:
                fetched[name] = ()  # Of which a part may be there by an error.
                self._fetch_file(into, name, pieces)
                fetched[name] = pieces
        for name in fetched.keys() - pointer.files.keys():
            (into / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Not empty, or the run itself.
                (into / name).parent.rmdir()
            del fetched[name]

    def create(self, directory: Path) -> None:
        """Publish what a run begins with, where there is none; blocks.

        Raises:
            RunError: There is a run already.
            StorageError: The storage refuses, or does not answer.
        """
        upload = Upload(self.location, Pointer(token=secrets.token_hex(8)))
        pointer = upload.pointer(directory)
        try:
            self._object.write(pointer.encoded(), over=None)
        except Superseded:
            self._remove(objects_of(pointer))
            raise RunError(self.location.address, "another process began this run") from None

    def withdraw(self) -> None:
        """Remove a run that has no checkpoint and no owner; blocks."""
        seen = self._object.read()
        if seen is None:
            return
        pointer = self._pointer(seen)
        if pointer.owner or any(name.startswith("checkpoints/") for name in pointer.files):
            return
        last = replace(pointer, fence=pointer.fence + 1, owner="nobody: it is being removed")
        try:
            self._object.write(replace(last, token=secrets.token_hex(8)).encoded(), over=seen)
        except Superseded:
            return  # Another process has it by now.
        (self.location / POINTER).delete()
        self._remove(objects_of(pointer))

    def _remove(self, names: set[str]) -> None:
        for name in names:
            (self.location / name).delete()

    @contextlib.contextmanager
    def lease(self, owner: str, *, take_over: bool = False, session: str = "") -> Iterator[Lease]:
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
        token = secrets.token_hex(8)
        mine = replace(pointer, fence=pointer.fence + 1, owner=owner, token=token)
        mine = replace(mine, session=session, renewals=0)
        try:
            seen = self._object.write(mine.encoded(), over=seen)
        except Superseded:
            raise self._taken(self._pointer(self._seen()).owner) from None
        lease = Lease(self.location, self._object, mine, seen)
        try:
            self._sweep_leftovers(mine)
            yield lease
        finally:
            lease.end()

    def _sweep_leftovers(self, mine: Pointer) -> None:
        """Remove what owners before uploaded and no pointer names; what cannot be removed stays.

        None of them can make a pointer to it any more, and a reader whom it was named to finds
        another pointer when it looks again.
        """
        named = objects_of(mine)
        with contextlib.suppress(StorageError):
            for stored in (self.location / OBJECTS).files():
                name = f"{OBJECTS}/{stored.location.name}"
                if name not in named and is_leftover(name, mine.fence):
                    stored.location.delete()

    def _when_free(self, session: str) -> Seen:
        """The pointer when it has no owner, or one that is gone: its session's, or silent."""
        first = self._seen()
        pointer = self._pointer(first)
        owner = pointer.owner
        if not owner or (session and pointer.session == session):
            return first
        if not self.is_atomic:
            raise self._taken(owner)
        until = self._clock() + LEASE_S
        while self._clock() < until:
            self._sleep(LEASE_S / 20)
            now = self._seen()
            if now.data == first.data:
                continue
            if not self._pointer(now).owner:
                return now
            raise self._taken(self._pointer(now).owner)
        return first

    def _taken(self, owner: str) -> RunError:
        reason = (
            f"is in use by process {owner}; one process at a time may train a run (wait for it, "
            "end it, choose another --run-dir, or supersede it with --take-over)"
        )
        return RunError(self.location.address, reason)

    def _seen(self) -> Seen:
        seen = self._object.read()
        if seen is None:
            reason = "holds no RUN.json, so it is no run (see the address that train printed)"
            raise RunError(self.location.address, reason)
        return seen

    def _pointer(self, seen: Seen) -> Pointer:
        return Pointer.decoded(seen.data, self.location)

    def _fetch_file(self, into: Path, name: str, pieces: tuple[Piece, ...]) -> None:
        path = into / name
        make_private_directory(path.parent)
        content = b""
        for piece in pieces:
            data = (self.location / piece.name).read_bytes()
            if len(data) != piece.size_bytes or blake3(data).hexdigest() != piece.blake3:
                place = f"{self.location}/{piece.name}"
                reason = f"is damaged ({name}: another size or checksum than {POINTER} says)"
                raise CheckpointError(place, reason)
            content += data
        with as_run_error(path):
            path.write_bytes(content)


class Lease:
    """The right to write a run, renewed by a thread of its own; made by `RemoteRun.lease`."""

    def __init__(
        self, location: Location, target: ConditionalObject, pointer: Pointer, seen: Seen
    ) -> None:
        self._location, self._object = location, target
        self._pointer, self._seen = pointer, seen
        self._upload = Upload(location, pointer)
        self._doomed: set[str] = set()  # Objects that only the pointer before named.
        self._lock = threading.Lock()
        self._lost: RunError | None = None
        self._is_ended = threading.Event()
        threading.Thread(target=self._keep, name="distsgd-lease", daemon=True).start()

    def check(self) -> None:
        """Raises RunError where another has taken the run; costs nothing."""
        if self._lost is not None:
            raise self._lost

    def publish(self, directory: Path) -> None:
        """Make the files of `directory` those of the run; blocks.

        Raises:
            RunError: Another has taken the run; what was published is as it was.
            StorageError: The storage refuses, or does not answer; the same.
        """
        assert not self._is_ended.is_set(), "only an owner publishes"
        self.check()
        pointer = self._upload.pointer(directory)
        with self._lock:
            before = objects_of(self._pointer)
            self._write(replace(pointer, renewals=self._pointer.renewals + 1))
            self._upload.published(self._pointer)
            doomed, self._doomed = self._doomed, before - objects_of(self._pointer)
        self._sweep(doomed)

    def end(self) -> None:
        """Let go of the run, if it is still this process's; blocks."""
        self._is_ended.set()
        with self._lock, contextlib.suppress(StorageError, RunError):
            if self._lost is None:
                self._write(replace(self._pointer, owner=""))

    def _keep(self) -> None:
        while not self._is_ended.wait(LEASE_S / 3):
            with self._lock, contextlib.suppress(StorageError, RunError):
                if self._is_ended.is_set() or self._lost is not None:
                    return
                self._write(replace(self._pointer, renewals=self._pointer.renewals + 1))

    def _write(self, pointer: Pointer) -> None:
        try:
            data = pointer.encoded()
            self._seen = self._object.write(data, over=self._seen)
        except Superseded:
            self._find_out()
            return self._write(pointer)
        self._pointer = pointer
        return None

    def _find_out(self) -> None:
        """Continue from an own write whose answer was lost; RunError where it is another's."""
        now = self._object.read()
        if now is None:
            raise self._lose("it is gone")
        try:
            found = Pointer.decoded(now.data, self._location)
        except CheckpointError as error:
            raise self._lose(error.reason) from error
        if found.token != self._pointer.token:
            raise self._lose(f"process {found.owner} has taken it over")
        self._seen = now

    def _lose(self, how: str) -> RunError:
        reason = f"was this process's to train, and {how}; nothing more is written"
        self._lost = RunError(self._location.address, reason)
        return self._lost

    def _sweep(self, names: set[str]) -> None:
        """Remove objects that no pointer names any more; what cannot be removed stays."""
        for name in names:
            with contextlib.suppress(StorageError):
                (self._location / name).delete()
