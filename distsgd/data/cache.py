"""The cache of prepared data: each source with its options is prepared once, whoever asks.

An entry is ``<cache>/<key>``, its lock ``<cache>/<key>.lock``. An entry's time of change says when
it was last asked for.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from blake3 import blake3

from distsgd.data.formats import with_companions
from distsgd.data.manifest import VERSION
from distsgd.data.options import PrepareOptions, validate_options
from distsgd.data.paths import expand_paths, file_stamp
from distsgd.data.prepare import Progress, prepare
from distsgd.data.shards import DataSet
from distsgd.errors import DataError, ShardError

MAX_CACHE_BYTES = 20 << 30
LOCK_TIMEOUT_S = 3600.0
# Between being found here and being opened an entry is in use without a lock of its own.
GRACE_S = 600.0
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
) -> Path:
    """The prepared directory of these files; blocks while it is made, here or by another process.

    The key is of the options and each file's path, size and time of change. Every checksum of a
    found entry is verified, and a damaged one is prepared again, so ``DataSet.open(path,
    verify=False)`` is enough afterwards.

    Raises DataError for the sources, and when the lock is not free within `lock_timeout_s`.
    """
    validate_options(options)
    paths = expand_paths(
        [*([sources] if isinstance(sources, str | Path) else sources), *options.test_sources]
    )
    num_train = len(expand_paths(sources))
    entry = cache_dir.expanduser().absolute() / _key(paths, num_train, options)
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(entry.with_suffix(".lock"), lock_timeout_s, on_message):
            if not _is_usable(entry, on_message):
                _sweep_unfinished(entry)
                on_message(f"preparing {_shown(paths)} into {entry} (once)")
                prepare(paths[:num_train], entry, options=options, on_progress=on_progress)
            os.utime(entry)
    except OSError as error:
        reason = f"cannot be used as a cache ({error.strerror}); name another directory"
        raise DataError(entry.parent, reason) from error
    evict(entry.parent, keep=entry, max_bytes=max_bytes, on_message=on_message)
    return entry


def evict(cache_dir: Path, *, keep: Path, max_bytes: int, on_message: Say) -> None:
    """Remove entries, the longest unused first, until the cache is within `max_bytes`.

    `keep`, entries that a DataSet has open and those asked for within the last ten minutes stay.
    """
    found: list[tuple[float, Path, int]] = []
    for entry in cache_dir.iterdir():
        with suppress(FileNotFoundError):  # Another process has just removed it.
            if _is_entry(entry):
                found.append((entry.stat().st_mtime, entry, _num_bytes(entry)))
    excess = sum(num_bytes for _, _, num_bytes in found) - max_bytes
    for last_used, entry, num_bytes in sorted(found):
        if excess <= 0:
            break
        if entry == keep or time.time() - last_used < GRACE_S:
            continue
        if _remove_unless_open(entry):
            on_message(
                f"removed {entry} from the cache ({num_bytes >> 20} MiB, the longest unused)"
            )
            excess -= num_bytes


def _key(paths: Sequence[Path], num_train: int, options: PrepareOptions) -> str:
    files = [(str(path.resolve()), *file_stamp(path)) for path in with_companions(paths)]
    chosen = {**asdict(options), "test_sources": ()}
    text = json.dumps([VERSION, chosen, num_train, files], sort_keys=True)
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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        said = False
        while not _try_lock(descriptor):
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
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sweep_unfinished(entry: Path) -> None:
    """Remove what killed processes left; whoever holds the entry's lock is alone at work on it."""
    for left in entry.parent.glob(f".{entry.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _remove_unless_open(entry: Path) -> bool:
    """Remove an entry unless a DataSet has it open; renamed first, so that nobody sees half."""
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # Another process was first.
    try:
        if not _try_lock(descriptor):
            return False
        doomed = entry.with_name(f".{entry.name}.evicted-{os.getpid()}")
        entry.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)


def _is_entry(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _num_bytes(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir())


def _shown(paths: Sequence[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
