"""What lies in the cache, for the command line: listing and removing entries.

A process that uses an entry has a shared lock on its directory (`DirectoryLock`); one that prepares
it, the lock of its file. Both go with their process, however it ends. Only what is named as an
entry is ever touched, so that a cache may be a directory with other things in it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distsgd.base.files import try_lock
from distsgd.data.cache_directory import (
    NO_CACHE,
    Say,
    bytes_of,
    entry_paths,
    paths_in,
    remove_unless_used,
    try_lock_file,
)
from distsgd.data.fetch import addresses_in
from distsgd.data.manifest import Manifest
from distsgd.data.manifest_reader import read_manifest
from distsgd.errors import DataError, DiskError, ShardError

SHOWN_LENGTH = 12  # Of a name: enough to tell entries apart.
_NAME = re.compile(r"\.?([0-9a-f]{32})(\.[^/]*)?")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One entry of the cache: a prepared data set, or what was fetched from object storage.

    Attributes:
        path: Its directory.
        num_bytes: What it takes on the disk.
        last_used_s: When it was last asked for, in seconds since 1970.
        is_in_use: Whether a process has it open or prepares it.
        manifest: What is in it; None where that cannot be read.
        problem: Why it cannot; "" where it can.
        fetched: Addresses of what was fetched; empty for a prepared data set.
    """

    path: Path
    num_bytes: int
    last_used_s: float
    is_in_use: bool
    manifest: Manifest | None
    problem: str
    fetched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cleared:
    """What `clear` has removed and freed, and the entries that were in use."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]
    freed_bytes: int


def list_entries(cache_dir: Path) -> list[CacheEntry]:
    """All entries, the one asked for last first; DiskError where the cache cannot be read."""
    with _usable(cache_dir):
        found = [_entry_of(path) for path in entry_paths(cache_dir)]
    return sorted(
        (entry for entry in found if entry is not None), key=lambda entry: -entry.last_used_s
    )


def clear(
    cache_dir: Path, names: Sequence[str] = (), *, older_than_s: float = 0.0, on_message: Say
) -> Cleared:
    """Remove entries that nobody uses, and what killed processes have left.

    Args:
        cache_dir: The cache.
        names: The entries, by name or its beginning; all unless given.
        older_than_s: Only those that were last asked for so long ago.
        on_message: Called with what a person should know.

    Raises DataError for a name that is none or not one, DiskError where the cache cannot be read.
    """
    removed, in_use, freed = [], [], 0
    with _usable(cache_dir):
        chosen = _chosen(cache_dir, names)
        for path in chosen:
            with suppress(FileNotFoundError):  # Another process has just removed it.
                status, num_bytes = path.stat(), bytes_of(path)
                if time.time() - status.st_mtime < older_than_s:
                    continue
                if remove_unless_used(path):
                    removed.append(path.name)
                    freed += num_bytes
                else:
                    in_use.append(path.name)
                    on_message(f"{path.name} is in use; it stays")
        if not names:
            freed += _remove_leftovers(cache_dir)
    return Cleared(tuple(removed), tuple(in_use), freed)


def _remove_leftovers(cache_dir: Path) -> int:
    """Remove what killed processes left, and locks without an entry; the bytes that are free."""
    freed = 0
    for key in sorted(_keys(cache_dir) - {path.name for path in entry_paths(cache_dir)}):
        lock = try_lock_file(cache_dir / f"{key}.lock")
        if lock is None:
            continue
        try:
            for left in cache_dir.glob(f".{key}.*/"):
                freed += bytes_of(left)
                shutil.rmtree(left, ignore_errors=True)
            if not (cache_dir / key).exists():
                (cache_dir / f"{key}.lock").unlink(missing_ok=True)
        finally:
            os.close(lock)
    return freed


def _chosen(cache_dir: Path, names: Sequence[str]) -> list[Path]:
    entries = sorted(entry_paths(cache_dir))
    if not names:
        return entries
    chosen: set[Path] = set()
    for name in names:
        meant = [path for path in entries if name and path.name.startswith(name)]
        if len(meant) != 1:
            what = f"has {len(meant)} entries that begin with" if meant else "has no entry"
            there = ", ".join(path.name[:SHOWN_LENGTH] for path in entries) or "none"
            raise DataError(cache_dir, f"{what} {name!r}; its entries are: {there}")
        chosen.update(meant)
    return sorted(chosen)


def _entry_of(path: Path) -> CacheEntry | None:
    """What is in an entry; None where another process has just removed it."""
    manifest, problem, fetched = None, "", tuple(addresses_in(path))
    try:
        try:
            manifest = None if fetched else read_manifest(path)
        except ShardError as error:
            problem = error.reason
        is_in_use, last_used_s = _is_used(path), path.stat().st_mtime
        return CacheEntry(path, bytes_of(path), last_used_s, is_in_use, manifest, problem, fetched)
    except FileNotFoundError:
        return None


def _is_used(entry: Path) -> bool:
    descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _keys(cache_dir: Path) -> set[str]:
    """Of entries, of what they were to be, and of their locks."""
    found = (_NAME.fullmatch(path.name) for path in paths_in(cache_dir))
    return {match[1] for match in found if match}


@contextmanager
def _usable(cache_dir: Path) -> Iterator[None]:
    """Turn what the file system says into DiskError."""
    try:
        yield
    except OSError as error:
        reason = NO_CACHE.format(error.strerror)
        raise DiskError(cache_dir, reason) from error
