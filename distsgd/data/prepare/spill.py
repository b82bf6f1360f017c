"""Spreading rows over shards: appended to a file of records each, then put in keyed order.

Memory is that of one piece while rows come in, and of one shard while shards are written.
Letters: N rows of a piece, I features, K label columns.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.base.random_keys import Purpose, permutation
from distsgd.data.manifest import ShardEntry
from distsgd.data.options import MAX_SHARDS, SHARD_BYTES, PrepareOptions
from distsgd.data.prepare.split import KeyedRows
from distsgd.data.shard_file import RowFormat, write_shard
from distsgd.errors import DiskError


class ShardWriter:
    """Takes rows in order of arrival and leaves shards of both splits in `directory`."""

    def __init__(
        self,
        directory: Path,
        row_format: RowFormat,
        options: PrepareOptions,
        num_rows: tuple[int, int],
    ) -> None:
        self._directory, self._format, self._seed = directory, row_format, options.split_seed
        self._keyed = KeyedRows(options.split_seed, Purpose.SHARD)
        train_rows, test_rows = num_rows
        row_bytes = row_format.record.itemsize
        self._test_shard_rows = max(1, SHARD_BYTES // row_bytes)
        self._num_shards = max(1, min(MAX_SHARDS, -(-train_rows * row_bytes // SHARD_BYTES)))
        if options.shards != "auto":
            self._num_shards = options.shards
        self._tests_seen = 0
        _check_room(directory, (train_rows + test_rows) * row_bytes + 2 * SHARD_BYTES)

    def append(
        self,
        first_row: int,
        test_N: NDArray[np.bool_],
        *,
        x_NI: NDArray[Any],
        target: NDArray[Any],
        squared_norms_N: NDArray[Any],
    ) -> None:
        """Take in rows ``first_row`` and following, standardised and cast."""
        records = np.empty(len(x_NI), self._format.record)
        records["x"], records["target"], records["squared_norm"] = x_NI, target, squared_norms_N
        row_N = np.arange(first_row, first_row + len(x_NI))
        records["source_row"] = row_N
        train_N = ~test_N
        if self._num_shards == 1:
            self._spill("train", 0, records[train_N])
        else:
            shard_N = self._keyed.integers(row_N) % np.uint64(self._num_shards)
            self._spread("train", shard_N[train_N].astype(np.int64), records[train_N])
        num_tests = int(test_N.sum())
        place_N = np.arange(self._tests_seen, self._tests_seen + num_tests)
        self._spread("test", place_N // self._test_shard_rows, records[test_N])
        self._tests_seen += num_tests

    def finish(self) -> tuple[tuple[ShardEntry, ...], tuple[ShardEntry, ...]]:
        """Write the shards of training and of held-out rows; shards without rows are left out."""
        num_test_shards = -(-self._tests_seen // self._test_shard_rows)
        train = [self._finish_shard("train", shard) for shard in range(self._num_shards)]
        test = [self._finish_shard("test", shard) for shard in range(num_test_shards)]
        return tuple(entry for entry in train if entry), tuple(entry for entry in test if entry)

    def _spread(self, split: str, shard_N: NDArray[np.int64], records: NDArray[Any]) -> None:
        order = np.argsort(shard_N, kind="stable")
        shards, starts = np.unique(shard_N[order], return_index=True)
        for shard, part in zip(shards.tolist(), np.split(order, starts[1:]), strict=False):
            self._spill(split, shard, records[part])

    def _spill(self, split: str, shard: int, records: NDArray[Any]) -> None:
        # Opened anew each time: there may be more shards than files a process may hold open.
        with self._spill_path(split, shard).open("ab", buffering=0) as file:
            view = memoryview(records.tobytes())
            while view:
                view = view[file.write(view) :]

    def _finish_shard(self, split: str, shard: int) -> ShardEntry | None:
        spilled = self._spill_path(split, shard)
        if not spilled.exists() or spilled.stat().st_size == 0:
            spilled.unlink(missing_ok=True)
            return None
        records: NDArray[Any] = np.memmap(spilled, self._format.record, mode="r")
        if split == "train":
            records = records[
                permutation(self._seed, Purpose.SHARD_ORDER, shard, size=len(records))
            ]
        entry = write_shard(self._directory / f"{split}-{shard:05d}.arrow", records, self._format)
        spilled.unlink()
        return entry

    def _spill_path(self, split: str, shard: int) -> Path:
        return self._directory / f"{split}-{shard:05d}.rows"


def _check_room(directory: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        reason = (
            f"needs about {num_bytes >> 20} MiB to prepare, {free >> 20} MiB are free;"
            " make room or name another place"
        )
        raise DiskError(directory.parent, reason)
