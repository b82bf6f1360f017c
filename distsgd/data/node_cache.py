"""A prepared data set on object storage: its shards are fetched as they are needed, once a node.

The processes of a node share one cache, in which a shard lies under its checksum. What a process
has mapped is never removed; a process that fetches while the cache is beyond its bound lets go of
the shards that it has not used for the longest time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, overload

from blake3 import blake3

from distsgd.base.locations import Location, StoredFile
from distsgd.data.cache_directory import MAX_CACHE_BYTES, Cache, DirectoryLock
from distsgd.data.fetch import CopyWatch, Wanted, hold_fetched
from distsgd.data.manifest import ShardEntry
from distsgd.data.shards import RowFormat, ShardArrays, map_shard
from distsgd.errors import DistSGDError

FETCH_TIMEOUT_S = 600.0  # For another process of the node to fetch a shard.


@dataclass(frozen=True, slots=True)
class StoredData:
    """A prepared data set on object storage, and the cache of the node that reads it.

    Attributes:
        location: The directory with its manifest.
        cache_dir: Of each node; `default_cache_dir` where it is None.
        max_bytes: What the cache may hold.
    """

    location: Location
    cache_dir: Path | None = None
    max_bytes: int = MAX_CACHE_BYTES

    def __str__(self) -> str:
        return self.location.address

    def __truediv__(self, name: str) -> Location:
        return self.location / name


# Of a prepared data set: what travels to all who read it.
DataPlace: TypeAlias = "Path | StoredData"


class _Mapped(NamedTuple):
    arrays: ShardArrays
    lock: DirectoryLock


class NodeCache:
    """The shards of one data set, as one process has them mapped."""

    def __init__(self, data: StoredData, row_format: RowFormat) -> None:
        self._data, self._format = data, row_format
        self._cache = Cache(data.cache_dir, data.max_bytes, lock_timeout_s=FETCH_TIMEOUT_S)
        self._mapped: OrderedDict[str, _Mapped] = OrderedDict()  # The one used last is last.
        self._ahead: threading.Thread | None = None

    def shard(self, entry: ShardEntry) -> ShardArrays:
        """A shard; blocks while it is fetched, where the node does not have it.

        Raises:
            ShardError: It is missing, or not what the manifest says.
            StorageError: The storage refuses, or does not answer.
            DiskError: The cache of this node cannot be used.
        """
        mapped = self._mapped.get(entry.file)
        if mapped is None:
            mapped = self._mapped[entry.file] = self._map(entry)
        self._mapped.move_to_end(entry.file)
        return mapped.arrays

    def ahead(self, entry: ShardEntry) -> ShardArrays | None:
        """A shard that is mapped already; else begins to fetch it, and returns at once.

        One is fetched at a time: it is no more than a hint.
        """
        if (mapped := self._mapped.get(entry.file)) is not None:
            return mapped.arrays
        if self._ahead is None or not self._ahead.is_alive():
            self._ahead = threading.Thread(target=self._fetch, args=(entry,), daemon=True)
            self._ahead.start()
        return None

    def _map(self, entry: ShardEntry) -> _Mapped:
        directory, lock = self._hold(entry)
        arrays = map_shard(directory / entry.file, entry, self._format, verify=False)
        while self._cache.evict(keep=directory) and self._mapped:
            _, unused = self._mapped.popitem(last=False)
            unused.lock.release()
        return _Mapped(arrays, lock)

    def _fetch(self, entry: ShardEntry) -> None:
        with suppress(DistSGDError):  # Said by the one who needs it.
            self._hold(entry)[1].release()

    def _hold(self, entry: ShardEntry) -> tuple[Path, DirectoryLock]:
        location = self._data / entry.file
        wanted = Wanted(StoredFile(location, entry.num_bytes, None), entry.file, entry.checksum)
        watch = CopyWatch("fetching", entry.num_bytes, self._cache.on_message)
        key = blake3(f"{entry.checksum} {entry.file}".encode()).hexdigest()[:32]
        return hold_fetched(self._cache, key, [wanted], watch)


class FetchedShards(Sequence[ShardArrays]):
    """Shards of one split, each there when it is asked for."""

    def __init__(self, cache: NodeCache, entries: Sequence[ShardEntry]) -> None:
        self._cache, self._entries = cache, entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> ShardArrays: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[ShardArrays]: ...
    def __getitem__(self, place: int | slice) -> ShardArrays | Sequence[ShardArrays]:
        """A shard; see `NodeCache.shard`."""
        if isinstance(place, slice):
            return FetchedShards(self._cache, self._entries[place])
        return self._cache.shard(self._entries[place])

    def ahead(self, place: int) -> ShardArrays | None:
        """See `NodeCache.ahead`."""
        return self._cache.ahead(self._entries[place])
