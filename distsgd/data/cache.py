"""The cache of prepared data: each source with its options is prepared once.

Where entries lie, and what becomes of them: `cache_directory`. A cache on object storage holds the
same under the same keys: `cache_address`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from distsgd.data.cache_directory import (
    LOCK_TIMEOUT_S,
    MAX_CACHE_BYTES,
    Cache,
    DirectoryLock,
)
from distsgd.data.dataset import DataSet
from distsgd.data.fetch import fetched
from distsgd.data.manifest import VERSION, Manifest
from distsgd.data.options import PrepareOptions, validate_options
from distsgd.data.prepare.prepare import Progress, write_data_set
from distsgd.data.sources.formats import (
    FoundFile,
    PathSpec,
    expand_paths,
    partitions_of,
    stamps,
    with_addresses_listed,
)
from distsgd.errors import DataError, ShardError

Say = Callable[[str], None]


def cached(
    sources: PathSpec,
    *,
    options: PrepareOptions,
    cache_dir: Path | None,
    on_message: Say,
    on_progress: Progress | None = None,
    max_bytes: int = MAX_CACHE_BYTES,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    held: list[DirectoryLock] | None = None,
) -> Path:
    """The prepared directory of these files; blocks while it is made, here or by another process.

    The key is of the options and each file's path, size and time of change, or of its address and
    the same. Every checksum of a found entry is verified, and a damaged one is prepared again, so
    ``DataSet.open(path, verify=False)`` is enough afterwards.

    Args:
        sources: Files, addresses or globs of either.
        options: How they are prepared.
        cache_dir: Where entries are kept; `default_cache_dir` where it is None.
        on_message: Called with what a person should know.
        on_progress: As of `prepare`.
        max_bytes: What the cache may hold; beyond it the longest unused entries are removed.
        lock_timeout_s: The longest wait for another process that prepares the same.
        held: Gets the lock that keeps the entry from being removed while it lives.

    Raises DiskError for the cache, DataError for the sources and for a lock held all the while,
    StorageError where object storage refuses.
    """
    cache = Cache(cache_dir, max_bytes, on_message, lock_timeout_s)
    found = _found(sources, options)

    def make(entry: Path) -> None:
        on_message(f"preparing {_shown(found.files)} into {entry} (once)")
        made = write_data_set(
            fetched(found.train, cache),
            fetched(found.tests, cache),
            entry,
            options=options,
            on_progress=on_progress or (lambda _phase, _done, _total: None),
            on_message=on_message,
        )
        _check_same_files(made, found.files, entry)

    entry, lock = cache.hold(
        found.key, is_usable=lambda entry: _is_usable(entry, on_message), make=make
    )
    if held is None:
        lock.release()
    else:
        held.append(lock)
    cache.evict(keep=entry)
    return entry


def key_of(sources: PathSpec, options: PrepareOptions) -> str:
    """The key of their entry: 32 hexadecimal digits. Raises as `cached`."""
    return _found(sources, options).key


@dataclass(frozen=True, slots=True)
class _Found:
    """Which files are prepared together, by the key of their entry."""

    train: list[str | FoundFile]
    tests: list[str | FoundFile]
    files: list[FoundFile]
    key: str


def _found(sources: PathSpec, options: PrepareOptions) -> _Found:
    validate_options(options)
    train = with_addresses_listed(sources)
    tests = with_addresses_listed(options.test_sources)
    files = expand_paths([*train, *tests])
    partitions = [
        partitions_of(spec, named=options.named_columns) for spec in (train, tests) if spec
    ]
    return _Found(train, tests, files, _key(files, len(expand_paths(train)), partitions, options))


def _check_same_files(manifest: Manifest, files: Sequence[FoundFile], entry: Path) -> None:
    """Refuse an entry of other files than its key is of: a glob may match more by now."""
    if [source.name for source in manifest.sources] != [str(file) for file in files]:
        shutil.rmtree(entry)
        reason = "its files changed a moment ago; try again when all are complete"
        raise DataError(str(files[0]), reason)


def _key(
    files: Sequence[FoundFile],
    num_train: int,
    partitions: Sequence[object],
    options: PrepareOptions,
) -> str:
    chosen = {**options.chosen, "test_sources": ()}
    text = json.dumps([VERSION, chosen, num_train, stamps(files), partitions], sort_keys=True)
    return blake3(text.encode()).hexdigest()[:32]


def _is_usable(entry: Path, on_message: Say) -> bool:
    try:
        DataSet.open(entry)
    except ShardError as error:
        on_message(f"the cached copy is damaged and is prepared again ({error})")
        return False
    return True


def _shown(files: Sequence[FoundFile]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
