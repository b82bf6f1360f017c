"""Files of rows on object storage: as a listing finds them, and as copies on this machine.

No I/O of its own here: they are found by `listing`, and fetched by `distsgd.data.fetch`. Until it
is fetched, a file is known by its address, its size and its time of change.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from distsgd.base.locations import Location, StoredFile
from distsgd.data.cache_directory import DirectoryLock


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of rows on object storage.

    Attributes:
        stored: It.
        directory: As `path_of`: what it was looked for in.
        companion: A file that is read along with it: labels of images.
    """

    stored: StoredFile
    directory: PurePosixPath
    companion: StoredFile | None = None

    def __str__(self) -> str:
        return self.stored.location.address

    @property
    def name(self) -> str:
        """Without its directory."""
        return self.stored.location.name

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """It, and its companion."""
        return (self.stored,) if self.companion is None else (self.stored, self.companion)


@dataclass(frozen=True, slots=True)
class FetchedFile(os.PathLike[str]):
    """A copy of a stored file: read from its place on this machine, called by its address.

    Attributes:
        location: Of the original.
        copy_directory: Where the copy lies, by the same name.
        directory: As of `ListedFile`.
        lock: Keeps the copy in the cache while this object lives.
    """

    location: Location
    copy_directory: str
    directory: PurePosixPath
    lock: DirectoryLock

    def __str__(self) -> str:
        return self.location.address

    def __fspath__(self) -> str:
        return os.path.join(self.copy_directory, self.location.name)  # noqa: PTH118 -- a text.

    @property
    def name(self) -> str:
        """Without its directory."""
        return self.location.name

    def with_name(self, name: str) -> FetchedFile:
        """The copy of another file of the same directory, if it was fetched along with this one."""
        location = Location(f"{self.location.address.rpartition('/')[0]}/{name}")
        return FetchedFile(location, self.copy_directory, self.directory, self.lock)

    def is_file(self) -> bool:
        """Whether it was."""
        return os.path.isfile(self)  # noqa: PTH113 -- of what is like a path.

    def open(self, mode: str) -> IO[bytes]:
        """The copy, to be read as bytes."""
        return open(self, mode)  # noqa: PTH123 -- the same.


def path_of(location: Location) -> PurePosixPath:
    """An address as a path from a root of its own.

    >>> path_of(Location("s3://bucket/day=3/a.parquet"))
    PurePosixPath('/s3:/bucket/day=3/a.parquet')
    """
    scheme, _, rest = location.address.partition("://")
    return PurePosixPath(f"/{scheme}:/{rest}")


FilePath: TypeAlias = "Path | FetchedFile"
