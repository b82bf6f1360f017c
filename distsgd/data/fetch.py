"""Fetching files from object storage into the cache, each version once a machine.

An entry holds a file, with its companion, and a list of what is in it with checksums. It appears
whole: it is written aside and renamed (`Cache.hold`). Of very many files several share an entry,
since a process holds each entry that it reads open.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from distsgd.base.files import atomic_directory, read_json, write_new_file
from distsgd.base.locations import StoredFile
from distsgd.data.cache_directory import FETCHED_FILE, Cache, DirectoryLock
from distsgd.data.shards import checksum
from distsgd.data.sources.formats import SourceSpec, stamps, with_addresses_listed
from distsgd.data.sources.stored_files import FetchedFile, ListedFile
from distsgd.errors import DataError, RunError, ShardError

SAY_EVERY_S = 10.0
MOST_ENTRIES = 256  # Of one call.


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be fetched, its path in its entry, and its checksum where that is known."""

    stored: StoredFile
    path: str
    checksum: str | None = None

    @property
    def said(self) -> str:
        """What says so, and what to do where it is not so."""
        if self.checksum is None:
            return "it was listed; it changed a moment ago, try again when it is complete"
        return "the manifest says; the data set is damaged, prepare it again"

    def error(self, reason: str) -> DataError:
        """That it cannot be used."""
        kind = DataError if self.checksum is None else ShardError
        return kind(self.stored.location.address, reason)


class CopyWatch:
    """Says now and then how far copying some files is.

    >>> now = iter([0.0, 0.0, 11.0])
    >>> watch = CopyWatch("fetching", 4_000_000, print, clock=lambda: next(now))
    >>> watch.begin("s3://bucket/rows.csv")
    fetching s3://bucket/rows.csv: 0.0 of 4.0 MB
    >>> watch.add(3_000_000)
    fetching s3://bucket/rows.csv: 3.0 of 4.0 MB
    """

    def __init__(
        self,
        doing: str,
        total_bytes: int,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing, self._total_bytes, self._say, self._clock = doing, total_bytes, say, clock
        self._done_bytes, self._said_s, self._address = 0, clock() - SAY_EVERY_S, ""

    def begin(self, address: object) -> None:
        """The next file is to be copied."""
        self._address = str(address)
        self.add(0)

    def skip(self, num_bytes: int) -> None:
        """So many bytes need not be copied."""
        self._done_bytes += num_bytes

    def add(self, num_bytes: int) -> None:
        """So many more bytes have been copied."""
        self._done_bytes += num_bytes
        if (now_s := self._clock()) - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            done, total = self._done_bytes / 1e6, self._total_bytes / 1e6
            places = 0 if total >= 10 else 1
            self._say(
                f"{self._doing} {self._address}: {done:,.{places}f} of {total:,.{places}f} MB"
            )


def fetched(spec: SourceSpec, cache: Cache) -> SourceSpec:
    """`spec` with a copy in the cache in place of each file on object storage; blocks.

    Raises:
        DataError: An address names no file, or a file changes all the while.
        ConfigError: An address cannot be one.
        StorageError: The storage refuses, or does not answer.
        DiskError: The cache cannot be used.
    """
    if not isinstance(spec, str | Path | Sequence):
        return spec
    items = with_addresses_listed(spec)
    wanted = [file for item in items if isinstance(item, ListedFile) for file in item.files]
    if not wanted:
        return spec
    watch = CopyWatch("fetching", sum(file.size_bytes for file in wanted), cache.on_message)
    copies = iter(_copies([it for it in items if isinstance(it, ListedFile)], cache, watch))
    return [next(copies) if isinstance(item, ListedFile) else item for item in items]


def _copies(files: Sequence[ListedFile], cache: Cache, watch: CopyWatch) -> Iterator[FetchedFile]:
    # A power of two: more files leave the entries of those before them as they are.
    together = 1 << max(0, (len(files) - 1) // MOST_ENTRIES).bit_length()
    for first in range(0, len(files), together):
        group = files[first : first + together]
        key = blake3(json.dumps(stamps(group)).encode()).hexdigest()[:32]
        wanted = [
            Wanted(stored, f"{place}/{stored.location.name}")
            for place, file in enumerate(group)
            for stored in file.files
        ]
        entry, lock = hold_fetched(cache, key, wanted, watch)
        for place, file in enumerate(group):
            yield FetchedFile(file.stored.location, f"{entry}/{place}", file.directory, lock)


def hold_fetched(
    cache: Cache, key: str, files: Sequence[Wanted], watch: CopyWatch
) -> tuple[Path, DirectoryLock]:
    """The entry of a key with these files in it, fetched once; blocks.

    Returns:
        Its directory, and the lock that keeps it.

    Raises:
        DataError: A file is gone, or is not what is wanted; or as `Cache.hold`.
        StorageError: The storage refuses, or does not answer.
        DiskError: The cache cannot be used.
    """
    is_new = False

    def make(entry: Path) -> None:
        nonlocal is_new
        with atomic_directory(entry) as staging:
            found = [_fetch(wanted, staging, watch) for wanted in files]
            listing = json.dumps({"files": found}).encode()
            write_new_file(staging / FETCHED_FILE, listing)
        is_new = True

    entry, lock = cache.hold(key, is_usable=lambda entry: _is_whole(entry, files), make=make)
    if is_new:
        cache.evict(keep=entry)
    else:
        watch.skip(sum(wanted.stored.size_bytes for wanted in files))
    return entry, lock


def addresses_in(entry: Path) -> list[str]:
    """What was fetched into an entry; none where it holds a prepared data set."""
    return [str(it.get("address")) for it in _listing(entry)]


def _fetch(wanted: Wanted, staging: Path, watch: CopyWatch) -> dict[str, Any]:
    """Fetch one file; what the list of the entry says of it."""
    location, size_bytes, _ = wanted.stored
    copy = staging / wanted.path
    copy.parent.mkdir(exist_ok=True)
    watch.begin(location)
    try:
        location.copy_to(copy, watch.add)
    except FileNotFoundError:
        if not copy.exists():  # The disk's word, and not the storage's.
            raise
        raise wanted.error("is missing; restore it") from None
    if (there := copy.stat().st_size) != size_bytes:
        raise wanted.error(f"has {there:,} bytes; must have {size_bytes:,}, as {wanted.said}")
    found = checksum(copy)
    if wanted.checksum not in (None, found):
        raise wanted.error(f"does not have the checksum that {wanted.said}")
    said = {"address": location.address, "path": wanted.path}
    return {**said, "num_bytes": size_bytes, "checksum": found}


def _is_whole(entry: Path, files: Sequence[Wanted]) -> bool:
    """Whether an entry has all files, with their checksums."""
    said = {it.get("path"): it for it in _listing(entry)}
    return all(
        (it := said.get(wanted.path)) is not None
        and it.get("num_bytes") == wanted.stored.size_bytes
        and wanted.checksum in (None, it.get("checksum"))
        and (copy := entry / wanted.path).is_file()
        and copy.stat().st_size == wanted.stored.size_bytes
        and checksum(copy) == it.get("checksum")
        for wanted in files
    )


def _listing(entry: Path) -> list[dict[str, Any]]:
    try:
        files = read_json(entry / FETCHED_FILE).get("files")
    except RunError:
        return []
    return [it for it in files if isinstance(it, dict)] if isinstance(files, list) else []
