"""The cache of prepared data: each source with its options is prepared once.

An entry is ``<cache>/<key>``, its lock ``<cache>/<key>.lock``. An entry's time of change says when
it was last asked for. What becomes of entries later: `cache_entries`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from blake3 import blake3

from distsgd.base.files import try_lock
from distsgd.data.dataset import DataSet, DirectoryLock
from distsgd.data.manifest import VERSION, Manifest
from distsgd.data.options import PrepareOptions, validate_options
from distsgd.data.prepare.prepare import Progress, prepare
from distsgd.data.sources.formats import expand_paths, partitions_of, with_companions
from distsgd.data.tables import file_stamp
from distsgd.errors import DataError, DiskError, ShardError

NO_CACHE = (
    "cannot be used as a cache ({}); name another directory: --cache-dir, in Python cache_dir"
)
MAX_CACHE_BYTES = 20_000_000_000
# Whoever found an entry a moment ago without holding it is about to open it.
GRACE_S = 600.0
LOCK_TIMEOUT_S = 3600.0
_ENTRY_NAME = re.compile(r"[0-9a-f]{32}")
_POLL_S = 0.05

Say = Callable[[str], None]


def cached(
    sources: str | Path | Sequence[str | Path],
    *,
    options: PrepareOptions,
    cache_dir: Path,
    on_message: Say,
    on_progress: Progress | None = None,
    max_bytes: int = MAX_CACHE_BYTES,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    held: list[DirectoryLock] | None = None,
) -> Path:
    """The prepared directory of these files; blocks while it is made, here or by another process.

    The key is of the options and each file's path, size and time of change. Every checksum of a
    found entry is verified, and a damaged one is prepared again, so ``DataSet.open(path,
    verify=False)`` is enough afterwards.

    Args:
        sources: Files or globs.
        options: How they are prepared.
        cache_dir: Where entries are kept; made if missing.
        on_message: Called with what a person should know.
        on_progress: As of `prepare`.
        max_bytes: What the cache may hold; beyond it the longest unused entries are removed.
        lock_timeout_s: The longest wait for another process that prepares the same.
        held: Gets the lock that keeps the entry from being removed while it lives.

    Raises DiskError for the cache, DataError for the sources and for a lock held all the while.
    """
    validate_options(options)
    paths = expand_paths(
        [*([sources] if isinstance(sources, str | Path) else sources), *options.test_sources]
    )
    num_train = len(expand_paths(sources))
    specs = [spec for spec in (sources, options.test_sources) if spec]
    partitions = [partitions_of(spec, named=options.named_columns) for spec in specs]
    entry = cache_dir.expanduser().absolute() / _key(paths, num_train, partitions, options)
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(entry.with_suffix(".lock"), lock_timeout_s, on_message):
            if not _is_usable(entry, on_message):
                _sweep_unfinished(entry)
                on_message(f"preparing {_shown(paths)} into {entry} (once)")
                made = prepare(
                    sources, entry, options=options, on_progress=on_progress, on_message=on_message
                )
                _check_same_files(made, paths, entry)
            os.utime(entry)
            if held is not None:
                held.append(DirectoryLock(entry))
    except OSError as error:
        reason = NO_CACHE.format(error.strerror)
        raise DiskError(entry.parent, reason) from error
    evict(entry.parent, keep=entry, max_bytes=max_bytes, on_message=on_message)
    return entry


def _check_same_files(manifest: Manifest, paths: Sequence[Path], entry: Path) -> None:
    """Refuse an entry of other files than its key is of: a glob may match more by now."""
    if [Path(source.name) for source in manifest.sources] != list(paths):
        shutil.rmtree(entry)
        reason = "its files changed a moment ago; try again when all are complete"
        raise DataError(paths[0].parent, reason)


def _key(
    paths: Sequence[Path], num_train: int, partitions: Sequence[object], options: PrepareOptions
) -> str:
    files = [(str(path.resolve()), *file_stamp(path)) for path in with_companions(paths)]
    chosen = {**asdict(options), "test_sources": ()}
    text = json.dumps([VERSION, chosen, num_train, files, partitions], sort_keys=True)
    return blake3(text.encode()).hexdigest()[:32]


def _is_usable(entry: Path, on_message: Say) -> bool:
    if not entry.exists():
        return False
    try:
        DataSet.open(entry)
    except ShardError as error:
        on_message(f"the cached copy is damaged and is prepared again ({error})")
        shutil.rmtree(entry)
        return False
    return True


@contextmanager
def _locked(path: Path, timeout_s: float, on_message: Say) -> Iterator[None]:
    """Hold the exclusive lock of a file, which the kernel frees when its holder dies."""
    deadline = time.monotonic() + timeout_s
    said = False
    while (descriptor := try_lock_file(path)) is None:
        if time.monotonic() >= deadline:
            reason = (
                f"is still held after {timeout_s:g} s by a process that prepares the same data;"
                " end it or wait"
            )
            raise DataError(path, reason)
        if not said:
            on_message(f"waiting for another process that prepares the same data (lock {path})")
            said = True
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _sweep_unfinished(entry: Path) -> None:
    """Remove what killed processes left; the caller holds the entry's lock and is alone here."""
    for left in entry.parent.glob(f".{entry.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _shown(paths: Sequence[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"


def evict(cache_dir: Path, *, keep: Path, max_bytes: int, on_message: Say) -> None:
    """Remove entries, the longest unused first, until the cache is within `max_bytes`.

    `keep`, entries in use and those asked for within the last ten minutes stay.
    """
    found: list[tuple[float, Path, int]] = []
    for entry in entry_paths(cache_dir):
        with suppress(FileNotFoundError):  # Another process has just removed it.
            found.append((entry.stat().st_mtime, entry, bytes_of(entry)))
    excess = sum(num_bytes for _, _, num_bytes in found) - max_bytes
    for last_used, entry, num_bytes in sorted(found):
        if excess <= 0:
            return
        if entry == keep or time.time() - last_used < GRACE_S:
            continue
        if remove_unless_used(entry):
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
    return sum(file.stat().st_size for file in entry.iterdir())
