"""A prepared data set as training sees it: rows of two splits, gathered into buffers.

No checking in the loop: shards are trusted once their checksums were held against the manifest.
On a disk all shards are mapped when it is opened, on object storage each when it is needed.
Letters: N rows asked for, I features, C classes.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.base.locations import Location, place_of
from distsgd.data.cache_directory import DirectoryLock
from distsgd.data.manifest import Manifest, ShardEntry
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.node_cache import DataPlace, FetchedShards, NodeCache, StoredData
from distsgd.data.shards import RowFormat, ShardArrays, map_shard

Int64 = NDArray[np.int64]
_libc = ctypes.CDLL(None)


class Rows:
    """The rows of one split, numbered in shard order.

    Args:
        shards: All of them, or `FetchedShards`.
        shard_rows: How many rows each has.
        num_classes: 0 where the labels are numbers.
    """

    def __init__(
        self, shards: Sequence[ShardArrays], shard_rows: Iterable[int], num_classes: int
    ) -> None:
        self._shards = shards
        self._starts = [0, *accumulate(shard_rows)]
        self.num_rows = self._starts[-1]
        self._classes = np.arange(num_classes, dtype=np.int64)
        self._labels = np.empty(0, np.int64)

    def gather_inplace(
        self,
        rows: Int64,
        *,
        x_NI: NDArray[Any],
        target: NDArray[Any],
        squared_norms_N: NDArray[Any] | None,
    ) -> None:
        """Copy rows into buffers.

        Args:
            rows: Row numbers below `num_rows`, ascending, int64 ``[N]``.
            x_NI: Features, of the data set's dtype.
            target: int64 ``[N, *target_shape]`` for class indices; floating, with C as one more
                axis, for classes as ones among zeros; of the data set's dtype
                ``[N, *target_shape]`` for numbers.
            squared_norms_N: ``|x|²`` of each row; None when it is not wanted.
        """
        if len(self._shards) == 1:
            self._take(self._shards[0], rows, x_NI, target, squared_norms_N)
            return
        first = 0
        while first < len(rows):
            shard = bisect_right(self._starts, int(rows[first])) - 1
            part = slice(first, int(rows.searchsorted(self._starts[shard + 1])))
            norms_N = None if squared_norms_N is None else squared_norms_N[part]
            local = rows[part] - self._starts[shard]
            self._take(self._shards[shard], local, x_NI[part], target[part], norms_N)
            first = part.stop

    def gather_range_inplace(
        self,
        first: int,
        last: int,
        *,
        x_NI: NDArray[Any],
        target: NDArray[Any],
        squared_norms_N: NDArray[Any] | None,
    ) -> None:
        """Copy rows ``first`` to ``last - 1`` into buffers, as `gather_inplace` does.

        Args:
            first: The first row.
            last: The row after the last.
            x_NI: As for `gather_inplace`, like the two that follow.
            target: Classes or numbers ``[N, *target_shape]``.
            squared_norms_N: Shape ``[N]``, or None.
        """
        for shard, (start, stop) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            low, high = max(first, start), min(last, stop)
            if low >= high:
                continue
            arrays = self._shards[shard]
            source, place = slice(low - start, high - start), slice(low - first, high - first)
            x_NI[place] = arrays.x_NI[source]
            target[place] = self._encoded(arrays.target[source], target)
            if squared_norms_N is not None:
                squared_norms_N[place] = arrays.squared_norms_N[source]

    def will_need(self, rows: range) -> None:
        """Have these neighbouring rows read, or their shard fetched; returns at once."""
        first = rows.start
        while first < rows.stop:
            shard = self._shard_of(first)
            start, end = self._starts[shard], min(rows.stop, self._starts[shard + 1])
            shards = self._shards
            arrays = shards.ahead(shard) if isinstance(shards, FetchedShards) else shards[shard]
            if arrays is not None:
                _advise_will_need(arrays.x_NI[first - start : end - start])
            first = end

    def targets(self) -> Iterator[tuple[NDArray[Any], Int64]]:
        """Of each shard the targets, and the rows' numbers over all sources; views, read-only.

        Yields:
            Classes or numbers ``[N, *target_shape]``, and int64 ``[N]``.
        """
        for shard in self._shards:
            yield shard.target, shard.source_rows_N

    def source_rows(self, rows: Int64) -> Int64:
        """Numbers of these rows over all sources the data set was prepared from; int64 ``[N]``."""
        shard_N = np.searchsorted(self._starts, rows, side="right") - 1
        numbers = np.empty(len(rows), np.int64)
        for shard in np.unique(shard_N).tolist():
            at = shard_N == shard
            numbers[at] = self._shards[shard].source_rows_N[rows[at] - self._starts[shard]]
        return numbers

    def _shard_of(self, row: int) -> int:
        # Clipped as rows are, so that the view past the end is empty and not an error.
        return min(bisect_right(self._starts, row) - 1, len(self._shards) - 1)

    def _take(
        self,
        arrays: ShardArrays,
        rows: Int64,
        x_NI: NDArray[Any],
        target: NDArray[Any],
        norms_N: NDArray[Any] | None,
    ) -> None:
        # mode="clip" is what lets numpy write into `out` directly; the rows are in range.
        arrays.x_NI.take(rows, 0, x_NI, "clip")
        if target.dtype == arrays.target.dtype:
            arrays.target.take(rows, 0, target, "clip")
        else:
            labels = self._labels_buffer(target.shape[:-1])
            arrays.target.take(rows, 0, labels, "clip")
            np.equal(labels[..., None], self._classes, out=target)
        if norms_N is not None:
            arrays.squared_norms_N.take(rows, 0, norms_N, "clip")

    def _encoded(self, labels: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        if target.dtype == labels.dtype:
            return labels
        one_hot: NDArray[np.bool_] = np.equal(labels[..., None], self._classes)
        return one_hot

    def _labels_buffer(self, shape: tuple[int, ...]) -> Int64:
        """Room for class indices of this shape, the same each time."""
        count = math.prod(shape)
        if len(self._labels) < count:
            self._labels = np.empty(count, np.int64)
        return self._labels[:count].reshape(shape)


def _advise_will_need(mapped: NDArray[Any]) -> None:
    """Ask for the pages of a mapped file under an array; no more than a hint."""
    address = mapped.ctypes.data
    within = address % mmap.PAGESIZE
    length = ctypes.c_size_t(mapped.nbytes + within)
    _libc.madvise(ctypes.c_void_p(address - within), length, mmap.MADV_WILLNEED)


class DataSet:
    """An open data set; the cache does not remove its files while it lives."""

    def __init__(
        self,
        path: DataPlace,
        manifest: Manifest,
        shards: Callable[[Sequence[ShardEntry]], Sequence[ShardArrays]],
        lock: DirectoryLock | None = None,
    ) -> None:
        def rows(entries: Sequence[ShardEntry]) -> Rows:
            counts = [entry.num_rows for entry in entries]
            return Rows(shards(entries), counts, len(manifest.class_names))

        self.path = path
        self.manifest = manifest
        self.train = rows(manifest.train_shards)
        self.test = rows(manifest.test_shards)
        self._lock = lock

    def __repr__(self) -> str:
        return f"DataSet({str(self.path)!r}, {self.manifest!r})"

    @classmethod
    def open(cls, path: str | Path | Location | StoredData, *, verify: bool = True) -> DataSet:
        """Map a prepared directory into memory; of one on object storage, each shard when needed.

        Args:
            path: The directory that `prepare` or `cached` wrote, or its address.
            verify: Read every shard once and hold its checksum against the manifest; what is
                fetched is held against it in any case.

        Raises ShardError, which names the file, when anything is missing or damaged; StorageError
        where object storage refuses.
        """
        place = place_of(path) if isinstance(path, str) else path
        if isinstance(place, Location):
            place = StoredData(place)
        if isinstance(place, StoredData):
            return cls._fetched(place)
        lock = DirectoryLock(place)
        manifest = read_manifest(place)
        row_format = RowFormat.of(manifest)

        def mapped(entries: Sequence[ShardEntry]) -> list[ShardArrays]:
            return [
                map_shard(place / entry.file, entry, row_format, verify=verify) for entry in entries
            ]

        return cls(place, manifest, mapped, lock)

    @classmethod
    def _fetched(cls, place: StoredData) -> DataSet:
        manifest = read_manifest(place)
        cache = NodeCache(place, RowFormat.of(manifest))
        return cls(place, manifest, lambda entries: FetchedShards(cache, entries))
