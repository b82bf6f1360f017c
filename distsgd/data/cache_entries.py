"""What lies in the cache of prepared data: listing entries, and removing unused ones.

A process that uses an entry has a shared lock on its directory (`DirectoryLock`); one that prepares
it, the lock of its file. Both go with their process, however it ends. Only what is named as an
entry is ever touched, so that a cache may be a directory with other things in it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distsgd.base.files import try_lock
from distsgd.data.manifest import Manifest, read_manifest
from distsgd.errors import DataError, DiskError, ShardError

NO_CACHE = (
    "cannot be used as a cache ({}); name another directory: --cache-dir, in Python cache_dir"
)
MAX_CACHE_BYTES = 20_000_000_000
# Whoever found an entry a moment ago without holding it is about to open it.
GRACE_S = 600.0
SHOWN_LENGTH = 12  # Of a name: enough to tell entries apart.
_NAME = re.compile(r"\.?([0-9a-f]{32})(\.[^/]*)?")
_ENTRY_NAME = re.compile(r"[0-9a-f]{32}")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One prepared data set of the cache.

    Attributes:
        path: Its directory.
        num_bytes: What it takes on the disk.
        last_used_s: When it was last asked for, in seconds since 1970.
        is_in_use: Whether a process has it open or prepares it.
        manifest: What is in it; None where that cannot be read.
        problem: Why it cannot; "" where it can.
    """

    path: Path
    num_bytes: int
    last_used_s: float
    is_in_use: bool
    manifest: Manifest | None
    problem: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """What `clear` has removed and freed, and the entries that were in use."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]
    freed_bytes: int


def default_cache_dir(xdg_cache_home: str | None = None) -> Path:
    """Where prepared data are kept unless another place is named.

    Args:
        xdg_cache_home: Where the user keeps caches; ``~/.cache`` unless it is an absolute path (a
            relative one is void by the XDG Base Directory Specification 0.8).

    Raises DataError where the user has no home.
    """
    if xdg_cache_home and Path(xdg_cache_home).is_absolute():
        return Path(xdg_cache_home) / "distsgd"
    try:
        return Path.home() / ".cache" / "distsgd"
    except RuntimeError:
        reason = "this user has no home directory; name a cache with --cache-dir (cache_dir=)"
        raise DataError("~/.cache/distsgd", reason) from None


def list_entries(cache_dir: Path) -> list[CacheEntry]:
    """All entries, the one asked for last first; DiskError where the cache cannot be read."""
    with _usable(cache_dir):
        found = [_entry_of(path) for path in _entry_paths(cache_dir)]
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
                status, num_bytes = path.stat(), _num_bytes(path)
                if time.time() - status.st_mtime < older_than_s:
                    continue
                if _remove_unless_used(path):
                    removed.append(path.name)
                    freed += num_bytes
                else:
                    in_use.append(path.name)
                    on_message(f"{path.name} is in use; it stays")
        if not names:
            freed += _remove_leftovers(cache_dir)
    return Cleared(tuple(removed), tuple(in_use), freed)


def evict(cache_dir: Path, *, keep: Path, max_bytes: int, on_message: Say) -> None:
    """Remove entries, the longest unused first, until the cache is within `max_bytes`.

    `keep`, entries in use and those asked for within the last ten minutes stay.
    """
    found: list[tuple[float, Path, int]] = []
    for entry in _entry_paths(cache_dir):
        with suppress(FileNotFoundError):  # Another process has just removed it.
            found.append((entry.stat().st_mtime, entry, _num_bytes(entry)))
    excess = sum(num_bytes for _, _, num_bytes in found) - max_bytes
    for last_used, entry, num_bytes in sorted(found):
        if excess <= 0:
            return
        if entry == keep or time.time() - last_used < GRACE_S:
            continue
        if _remove_unless_used(entry):
            reason = "the longest unused; [data] cache_size_gb says how much stays"
            on_message(f"removed {entry} from the cache ({num_bytes / 1e6:,.0f} MB, {reason})")
            excess -= num_bytes


def try_lock_file(path: Path) -> int | None:
    """The descriptor of a lock file that this process has now, or None where another one has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_lock(descriptor):
            os.close(descriptor)
            return None
        # Whoever removes an entry removes its lock as well: the file may be there no more.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _remove_unless_used(entry: Path) -> bool:
    """Remove an entry unless it is in use; renamed first, so that nobody sees half of it."""
    lock = try_lock_file(_lock_of(entry))
    if lock is None:
        return False
    try:
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False  # Another process was first.
        try:
            if not try_lock(descriptor):
                return False
            doomed = entry.with_name(f".{entry.name}.removed-{os.getpid()}")
            entry.rename(doomed)
        finally:
            os.close(descriptor)
        shutil.rmtree(doomed, ignore_errors=True)
        _lock_of(entry).unlink(missing_ok=True)
        return True
    finally:
        os.close(lock)


def _remove_leftovers(cache_dir: Path) -> int:
    """Remove what killed processes left, and locks without an entry; the bytes that are free."""
    freed = 0
    for key in sorted(_keys(cache_dir) - {path.name for path in _entry_paths(cache_dir)}):
        lock = try_lock_file(cache_dir / f"{key}.lock")
        if lock is None:
            continue
        try:
            for left in cache_dir.glob(f".{key}.*/"):
                freed += _num_bytes(left)
                shutil.rmtree(left, ignore_errors=True)
            if not (cache_dir / key).exists():
                (cache_dir / f"{key}.lock").unlink(missing_ok=True)
        finally:
            os.close(lock)
    return freed


def _chosen(cache_dir: Path, names: Sequence[str]) -> list[Path]:
    entries = sorted(_entry_paths(cache_dir))
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
    manifest, problem = None, ""
    try:
        try:
            manifest = read_manifest(path)
        except ShardError as error:
            problem = error.reason
        is_in_use = _is_used(path)
        return CacheEntry(
            path, _num_bytes(path), path.stat().st_mtime, is_in_use, manifest, problem
        )
    except FileNotFoundError:
        return None


def _is_used(entry: Path) -> bool:
    descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _entry_paths(cache_dir: Path) -> list[Path]:
    paths = (path for path in _paths(cache_dir) if _ENTRY_NAME.fullmatch(path.name))
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


def _keys(cache_dir: Path) -> set[str]:
    """Of entries, of what they were to be, and of their locks."""
    found = (_NAME.fullmatch(path.name) for path in _paths(cache_dir))
    return {match[1] for match in found if match}


def _paths(cache_dir: Path) -> list[Path]:
    """All that lies there; a cache that is not there yet is empty."""
    try:
        return list(cache_dir.iterdir())
    except FileNotFoundError:
        return []


def _lock_of(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.lock")


def _num_bytes(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir())


@contextmanager
def _usable(cache_dir: Path) -> Iterator[None]:
    """Turn what the file system says into DiskError."""
    try:
        yield
    except OSError as error:
        reason = NO_CACHE.format(error.strerror)
        raise DiskError(cache_dir, reason) from error
