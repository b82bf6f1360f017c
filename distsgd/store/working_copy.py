"""A run on object storage as a directory of this machine, for as long as a process needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from distsgd.base.leases import own_name
from distsgd.base.locations import Location
from distsgd.base.private_directories import directory_of
from distsgd.store.pointer import Files
from distsgd.store.remote_run import RemoteRun, RunLease


class WorkingCopy:
    """The files of the run at `location` in a private directory, which is gone with this object.

    What killed processes of this user have left of theirs is removed.

    Attributes:
        location: Where the run is.
        path: The directory.
        remove: Removes it before that.
    """

    def __init__(self, location: Location) -> None:
        self.location, self._remote = location, RemoteRun(location)
        directory, self.remove = directory_of(self, "distsgd-run")
        self.path = directory / location.name
        self._fetched: Files = {}
        self._lease: RunLease | None = None

    def exists(self) -> bool:
        """Whether there is a run; blocks. Raises StorageError."""
        return self._remote.exists()

    def fetch(self) -> None:
        """Bring it up to what was published last; blocks.

        Raises:
            RunError: There is no run.
            CheckpointError: A file is damaged.
            StorageError: The storage refuses, or does not answer.
        """
        self._remote.fetch(self.path, self._fetched)

    def begin(self) -> None:
        """Publish what was written as a new run; blocks. Raises RunError where there is one."""
        self._remote.create(self.path)

    def withdraw(self, beginning: frozenset[str]) -> None:
        """Take back a run that has nothing but its beginning; see `RemoteRun.withdraw`."""
        self._remote.withdraw(beginning)

    @contextlib.contextmanager
    def lease(self, *, take_over: bool, session: str = "") -> Iterator[None]:
        """Be the one who publishes; see `RemoteRun.lease`. The copy is brought up to date."""
        with self._remote.lease(own_name(), take_over=take_over, session=session) as lease:
            self._lease = lease
            try:
                self.fetch()
                yield
            finally:
                self._lease = None

    def doubts(self) -> list[str]:
        """Why a second owner is not kept out for certain, once this process is one."""
        if not (weakness := self._remote.weakness):
            return []
        kept_apart = "processes that take this run at the same moment are not kept apart"
        return [f"WARNING: {self.location}: {kept_apart}: {weakness}; have one at a time"]

    def holder(self) -> str | None:
        """The process that has the run; see `RemoteRun.living_owner`."""
        return self._remote.living_owner()

    def check(self) -> None:
        """Raises RunError where another has taken the run over; see `RunLease.check`."""
        if self._lease is not None:
            self._lease.check()

    def publish(self) -> None:
        """Make the copy what the run is; see `RunLease.publish`."""
        assert self._lease is not None, "only who has the lease publishes"
        self._lease.publish(self.path)
