"""The cache as a directory: entries by key, each made once, held while in use, removed when old.

An entry is ``<cache>/<key>``, a directory; its lock ``<cache>/<key>.lock``. It is a prepared data
set (`cache`), or files that were fetched from object storage (`fetch`), which have a list of
themselves in it. An entry's time of change says when it was last asked for.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distsgd.base.files import lock_within, try_lock
from distsgd.base.locations import Location, place_argument
from distsgd.base.settings import refuse
from distsgd.data.options import default_cache_dir
from distsgd.errors import DataError, DiskError

NO_CACHE = (
    "cannot be used as a cache ({}); name another directory: --cache-dir, in Python cache_dir"
)
MAX_CACHE_BYTES = 20_000_000_000
FETCHED_FILE = "fetched.json"  # In an entry of files that were fetched: which they are.
# Whoever found a prepared entry a moment ago without holding it is about to open it.
GRACE_S = 600.0
LOCK_TIMEOUT_S = 3600.0  # For an entry to be made by another process.
_HOLD_TIMEOUT_S = 30.0
_ENTRY_NAME = re.compile(r"[0-9a-f]{32}")
_POLL_S = 0.05

Say = Callable[[str], None]


class DirectoryLock:
    """A shared lock on a directory, which the cache respects; none if its disk has no locks.

    Listing or removing entries takes it for a moment only, which is waited for.

    Raises:
        DataError: Another process has kept it locked for longer than that.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor: int | None = None
        # What is missing is reported by whoever reads the manifest.
        with suppress(OSError):
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not lock_within(self._descriptor, _HOLD_TIMEOUT_S, shared=True):
                reason = f"has been locked by another process for {_HOLD_TIMEOUT_S:g} s; end it"
                raise DataError(directory, reason)

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


def _silent(_text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Where prepared and fetched data are kept.

    Attributes:
        named: The directory, made if missing; `default_cache_dir` where it is None. A ``~`` in it
            is the home of this process.
        max_bytes: What it may hold; beyond it the longest unused entries are removed.
        on_message: Called with what a person should know.
        lock_timeout_s: The longest wait for another process that makes the same entry.
    """

    named: Path | None = None
    max_bytes: int = MAX_CACHE_BYTES
    on_message: Say = _silent
    lock_timeout_s: float = LOCK_TIMEOUT_S

    @property
    def path(self) -> Path:
        """Its directory. Raises DataError where that is in a home and this user has none."""
        try:
            return (self.named or default_cache_dir()).expanduser().absolute()
        except RuntimeError:
            reason = "this user has no home directory; name another cache (--cache-dir, cache_dir=)"
            raise DataError(str(self.named), reason) from None

    def hold(
        self, key: str, *, is_usable: Callable[[Path], bool], make: Callable[[Path], None]
    ) -> tuple[Path, DirectoryLock]:
        """The entry of a key, made once, and the lock that keeps it; blocks while it is made.

        Args:
            key: 32 hexadecimal digits.
            is_usable: Whether an entry that exists is whole; a damaged one is made again.
            make: Makes the entry at its path, whole or not at all.

        Raises:
            DiskError: The cache cannot be used.
            DataError: Another process makes the entry all the while.
        """
        entry = self.path / key
        with self._errors():
            entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(lock_of(entry)):
                if entry.exists() and not is_usable(entry):
                    shutil.rmtree(entry)
                if not entry.exists():
                    _sweep_unfinished(entry)
                    make(entry)
                os.utime(entry)
                lock = DirectoryLock(entry)
        return entry, lock

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A private directory in it, for the length of a ``with``."""
        entry = self.path / secrets.token_hex(16)
        staging = entry.with_name(f".{entry.name}.staging")
        with self._errors():
            entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # With the lock of an entry, so that clearing the cache leaves it alone.
            with self._locked(lock_of(entry)):
                try:
                    staging.mkdir(mode=0o700)
                    yield staging
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
                    lock_of(entry).unlink(missing_ok=True)

    def evict(self, *, keep: Path) -> int:
        """Remove entries, the longest unused first, until it is within its bound.

        `keep`, entries in use and prepared ones asked for within the last ten minutes stay.

        Returns:
            By how many bytes it is still beyond its bound.
        """
        found: list[tuple[float, Path, int]] = []
        for entry in entry_paths(self.path):
            with suppress(FileNotFoundError):  # Another process has just removed it.
                found.append((entry.stat().st_mtime, entry, bytes_of(entry)))
        excess = sum(num_bytes for _, _, num_bytes in found) - self.max_bytes
        for last_used, entry, num_bytes in sorted(found):
            if excess <= 0:
                return 0
            # What was fetched is held from the moment on at which it is found.
            grace_s = 0.0 if (entry / FETCHED_FILE).exists() else GRACE_S
            if entry == keep or time.time() - last_used < grace_s:
                continue
            if remove_unless_used(entry):
                reason = "the longest unused; [data] cache_size_gb says how much stays"
                size = f"{num_bytes / 1e6:,.0f} MB"
                self.on_message(f"removed {entry} from the cache ({size}, {reason})")
                excess -= num_bytes
        return max(excess, 0)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DiskError(self.path, NO_CACHE.format(error.strerror or error)) from error

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold the exclusive lock of a file, which the kernel frees when its holder dies."""
        deadline = time.monotonic() + self.lock_timeout_s
        said = False
        while (descriptor := try_lock_file(path)) is None:
            if time.monotonic() >= deadline:
                reason = (
                    f"is still held after {self.lock_timeout_s:g} s by a process that prepares or"
                    " fetches the same data; end it or wait"
                )
                raise DataError(path, reason)
            if not said:
                what = "that prepares or fetches the same data"
                self.on_message(f"waiting for another process {what} (lock {path})")
                said = True
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            os.close(descriptor)


DEFAULT_CACHE = Cache()


def cache_argument(value: object) -> Path | Location | None:
    """`value` as the cache of a call, or None. Raises ConfigError."""
    return None if value is None else place_argument("cache_dir", value)


def local_cache(value: object) -> Path | None:
    """The same, where what is on object storage is no cache. Raises ConfigError."""
    place = cache_argument(value)
    if isinstance(place, Location):
        refuse("cache_dir", place.address, "a directory of this machine")
    return place


def _sweep_unfinished(entry: Path) -> None:
    """Remove what killed processes left; the caller holds the entry's lock and is alone here."""
    for left in entry.parent.glob(f".{entry.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


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


def remove_unless_used(entry: Path) -> bool:
    """Remove an entry unless it is in use; renamed first, so that nobody sees half of it."""
    lock = try_lock_file(lock_of(entry))
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
        lock_of(entry).unlink(missing_ok=True)
        return True
    finally:
        os.close(lock)


def entry_paths(cache_dir: Path) -> list[Path]:
    """The directories of its entries."""
    paths = (path for path in paths_in(cache_dir) if _ENTRY_NAME.fullmatch(path.name))
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


def paths_in(cache_dir: Path) -> list[Path]:
    """All that lies there; a cache that is not there yet is empty."""
    try:
        return list(cache_dir.iterdir())
    except FileNotFoundError:
        return []


def lock_of(entry: Path) -> Path:
    """The lock of its file."""
    return entry.with_name(f"{entry.name}.lock")


def bytes_of(entry: Path) -> int:
    """What an entry takes on the disk."""
    return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
