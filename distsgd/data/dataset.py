"""A prepared data set as training sees it: rows of two splits, gathered into buffers.

No checking in the loop: shards are trusted once their checksums were held against the manifest.
Letters: N rows asked for, I features, C classes, K label columns.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.base.files import lock_within
from distsgd.data.manifest import (
    Manifest,
    ShardEntry,
)
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.shards import RowFormat, ShardArrays, map_shard
from distsgd.errors import DataError

Int64 = NDArray[np.int64]
LOCK_TIMEOUT_S = 30.0
_libc = ctypes.CDLL(None)


class Rows:
    """The rows of one split, numbered in shard order."""

    def __init__(self, shards: Sequence[ShardArrays], num_classes: int) -> None:
        self._shards = shards
        self._starts = [0, *accumulate(len(shard.x_NI) for shard in shards)]
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
            target: int64 ``[N]`` for class indices; floating ``[N, C]`` for classes as ones among
                zeros; of the data set's dtype ``[N, K]`` for numbers.
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
            target: Classes ``[N]`` or numbers ``[N, K]``.
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
        """Have the operating system read these neighbouring rows; returns at once."""
        first = rows.start
        while first < rows.stop:
            shard = self._shard_of(first)
            start, end = self._starts[shard], min(rows.stop, self._starts[shard + 1])
            _advise_will_need(self._shards[shard].x_NI[first - start : end - start])
            first = end

    def targets(self) -> Iterator[tuple[NDArray[Any], Int64]]:
        """Of each shard the targets, and the rows' numbers over all sources; views, read-only.

        Yields:
            Classes ``[N]`` or numbers ``[N, K]``, and int64 ``[N]``.
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
            arrays.target.take(rows, 0, self._labels_buffer(len(rows)), "clip")
            self._one_hot_inplace(self._labels_buffer(len(rows)), target)
        if norms_N is not None:
            arrays.squared_norms_N.take(rows, 0, norms_N, "clip")

    def _encoded(self, labels: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        if target.dtype == labels.dtype:
            return labels
        one_hot: NDArray[np.bool_] = np.equal(labels[:, None], self._classes)
        return one_hot

    def _one_hot_inplace(self, labels_N: Int64, target_NC: NDArray[Any]) -> None:
        np.equal(labels_N[:, None], self._classes, out=target_NC)

    def _labels_buffer(self, count: int) -> Int64:
        if len(self._labels) < count:
            self._labels = np.empty(count, np.int64)
        return self._labels[:count]


def _advise_will_need(mapped: NDArray[Any]) -> None:
    """Ask for the pages of a mapped file under an array; no more than a hint."""
    address = mapped.ctypes.data
    within = address % mmap.PAGESIZE
    length = ctypes.c_size_t(mapped.nbytes + within)
    _libc.madvise(ctypes.c_void_p(address - within), length, mmap.MADV_WILLNEED)


class DataSet:
    """An open data set; the cache does not remove its files while it lives."""

    def __init__(self, path: Path, manifest: Manifest, *, train: Rows, test: Rows) -> None:
        self.path = path
        self.manifest = manifest
        self.train = train
        self.test = test
        self._lock: DirectoryLock | None = None

    def __repr__(self) -> str:
        return f"DataSet({str(self.path)!r}, {self.manifest!r})"

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> DataSet:
        """Map a prepared directory into memory.

        Args:
            path: The directory that `prepare` or `cached` wrote.
            verify: Read every shard once and hold its checksum against the manifest.

        Raises ShardError, which names the file, when anything is missing or damaged.
        """
        directory = Path(path)
        lock = DirectoryLock(directory)
        manifest = read_manifest(directory)
        row_format, num_classes = RowFormat.of(manifest), len(manifest.class_names)

        def rows(entries: Sequence[ShardEntry]) -> Rows:
            files = [(directory / entry.file, entry) for entry in entries]
            return Rows(
                [map_shard(*file, row_format, verify=verify) for file in files], num_classes
            )

        data = cls(
            directory, manifest, train=rows(manifest.train_shards), test=rows(manifest.test_shards)
        )
        data._lock = lock
        return data


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
            if not lock_within(self._descriptor, LOCK_TIMEOUT_S, shared=True):
                reason = f"has been locked by another process for {LOCK_TIMEOUT_S:g} s; end it"
                raise DataError(directory, reason)

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()
