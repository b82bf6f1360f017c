"""Which files of object storage an address or a glob of addresses names. Fetches nothing."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import PurePosixPath

from distsgd.base.locations import Location, StoredFile
from distsgd.data.sources.known_formats import companion_names
from distsgd.data.sources.stored_files import ListedFile, path_of
from distsgd.errors import DataError


def listed_files(location: Location) -> list[ListedFile]:
    """The files that an address or a glob of addresses names, by name; blocks.

    Raises:
        DataError: There is none.
        StorageError: The storage refuses, or does not answer.
    """
    fixed, pattern = _split(location)
    stored = location.stat()
    if stored is not None:
        return [_listed(stored, path_of(location).parent)]
    if pattern:
        found = [it for it in fixed.files() if _matches(_parts_below(fixed, it.location), pattern)]
        if not found:
            raise DataError(location.address, "no file matches this glob; check the address")
        return [_listed(it, path_of(fixed)) for it in found]
    if location.files():
        example = f'"{location}/*.parquet"'
        raise DataError(location.address, f"is a directory; name files or a glob such as {example}")
    raise DataError(location.address, "there is no such file; check the address")


def _split(location: Location) -> tuple[Location, list[str]]:
    """The directory before the first wildcard, and the pattern of what is below it."""
    root, *parts = location.address.partition("://")[2].split("/")
    if glob.has_magic(root):
        raise DataError(location.address, "has a wildcard in its bucket; name one bucket")
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
    start = Location("/".join([f"{location.scheme}://{root}", *fixed]))
    return start, parts[len(fixed) :]


def _parts_below(directory: Location, location: Location) -> list[str]:
    return location.address.removeprefix(f"{directory.address}/").split("/")


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is of a pattern, by the rules of `glob`: ``**`` is any number of directories.

    >>> _matches(["a", "b", "c.csv"], ["**", "*.csv"]), _matches(["a", "b.csv"], ["*.csv"])
    (True, False)
    """
    if not pattern:
        return not parts
    if pattern[0] == "**" and _matches(parts, pattern[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    if pattern[0] == "**":
        return _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _listed(stored: StoredFile, directory: PurePosixPath) -> ListedFile:
    return ListedFile(stored, directory, next(_companions(stored.location), None))


def _companions(location: Location) -> Iterator[StoredFile]:
    above = location.address.rpartition("/")[0]
    for name in companion_names(location.name):
        if found := Location(f"{above}/{name}").stat():
            yield found
