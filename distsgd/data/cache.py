"""The cache of prepared data: each source with its options is prepared once.

An entry is ``<cache>/<key>``, its lock ``<cache>/<key>.lock``. An entry's time of change says when
it was last asked for. What becomes of entries later: `cache_entries`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from blake3 import blake3

from distsgd.data.cache_entries import MAX_CACHE_BYTES, NO_CACHE, evict, try_lock_file
from distsgd.data.dataset import DataSet, DirectoryLock
from distsgd.data.manifest import VERSION, Manifest
from distsgd.data.options import PrepareOptions, validate_options
from distsgd.data.prepare.prepare import Progress, prepare
from distsgd.data.sources.formats import expand_paths, partitions_of, with_companions
from distsgd.data.tables import file_stamp
from distsgd.errors import DataError, DiskError, ShardError

LOCK_TIMEOUT_S = 3600.0
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
