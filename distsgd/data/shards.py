"""Shards: rows spread over files of one Arrow record batch, which are read by mapping them.

While rows come in they are appended to a file of records for each shard, then put in keyed order.
Memory is that of one piece while rows come in, and of one shard while shards are written.
Letters: N rows of a shard or a piece, I features.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from distsgd.base.random_keys import KeyedRows, Purpose, permutation
from distsgd.data.manifest import Manifest, ShardEntry
from distsgd.data.options import MAX_SHARDS, SHARD_BYTES, PrepareOptions
from distsgd.errors import DiskError, ShardError


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A row: features, and as target class indices or numbers of this shape; one class for none.

    Targets of any axes lie in the file as one list of them all.
    """

    num_features: int
    target_shape: tuple[int, ...]
    has_classes: bool
    dtype: str

    @classmethod
    def of(cls, manifest: Manifest) -> RowFormat:
        """The format of a data set's rows."""
        has_classes = manifest.label_kind == "class"
        return cls(manifest.num_features, manifest.target_shape, has_classes, manifest.dtype)

    @property
    def _list_size(self) -> int | None:
        return math.prod(self.target_shape) if self.target_shape else None

    @property
    def record(self) -> np.dtype[Any]:
        """A row as a packed record, for files that are written row by row."""
        shape = () if self._list_size is None else (self._list_size,)
        fields: list[Any] = [
            ("x", self.dtype, (self.num_features,)),
            ("target", "<i8" if self.has_classes else self.dtype, shape),
            ("squared_norm", self.dtype),
            ("source_row", "<i8"),
        ]
        return np.dtype(fields)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a shard."""
        number = pa.float32() if self.dtype == "float32" else pa.float64()
        target = pa.int64() if self.has_classes else number
        if self._list_size is not None:
            target = pa.list_(target, self._list_size)
        columns = [("x", pa.list_(number, self.num_features)), ("target", target)]
        return pa.schema([*columns, ("squared_norm", number), ("source_row", pa.int64())])


@dataclass(frozen=True, slots=True)
class ShardArrays:
    """Read-only arrays of a shard, zero-copy from its file.

    Attributes:
        x_NI: Standardised features.
        target: Class indices int64 or numbers, ``[N, *target_shape]``.
        squared_norms_N: ``|x|²`` of each row.
        source_rows_N: Row numbers over all sources, int64.
    """

    x_NI: NDArray[Any]
    target: NDArray[Any]
    squared_norms_N: NDArray[Any]
    source_rows_N: NDArray[np.int64]


def write_shard(path: Path, records: NDArray[Any], row_format: RowFormat) -> ShardEntry:
    """Write records as a shard and flush it to the disk; blocks until that is done."""
    columns = []
    for field in row_format.schema:
        values = np.ascontiguousarray(records[field.name])
        flat = pa.array(values.reshape(-1))
        is_list = pa.types.is_fixed_size_list(field.type)
        columns.append(
            pa.FixedSizeListArray.from_arrays(flat, field.type.list_size) if is_list else flat
        )
    batch = pa.record_batch(columns, schema=row_format.schema)
    with path.open("wb") as file:
        with pa.ipc.new_file(file, row_format.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    return ShardEntry(path.name, len(records), path.stat().st_size, checksum(path))


def checksum(path: Path) -> str:
    """blake3 of a file, in hexadecimal."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def map_shard(path: Path, entry: ShardEntry, row_format: RowFormat, *, verify: bool) -> ShardArrays:
    """Map a shard into memory; ShardError when it is not the file the manifest describes."""
    way_out = "the data set is damaged; prepare it again"
    try:
        num_bytes = path.stat().st_size
        if num_bytes != entry.num_bytes:
            raise ShardError(
                path, f"has {num_bytes} bytes, the manifest says {entry.num_bytes}; {way_out}"
            )
        if verify and checksum(path) != entry.checksum:
            raise ShardError(path, f"does not have the checksum of the manifest; {way_out}")
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            if reader.schema != row_format.schema or reader.num_record_batches != 1:
                raise ShardError(
                    path, f"does not have the columns the manifest describes; {way_out}"
                )
            batch = reader.get_batch(0)
        batch.validate(full=True)
    except FileNotFoundError as error:
        raise ShardError(path, f"is missing; {way_out}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(path, f"cannot be read ({error}); {way_out}") from error
    if batch.num_rows != entry.num_rows or any(column.null_count for column in batch.columns):
        raise ShardError(
            path, f"has {batch.num_rows} rows, the manifest says {entry.num_rows}; {way_out}"
        )
    x_NI, target, squared_norms_N, source_rows_N = (_view(column) for column in batch.columns)
    target = target.reshape(-1, *row_format.target_shape)
    return ShardArrays(x_NI, target, squared_norms_N, source_rows_N)


def _view(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=True)
        return np.asarray(flat).reshape(-1, column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=True))


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
        """Take in rows ``first_row`` and following, standardised and cast.

        The target is of one class ``[N]``, or of as many a row as the format says.
        """
        records = np.empty(len(x_NI), self._format.record)
        records["x"], records["squared_norm"] = x_NI, squared_norms_N
        records["target"] = target.reshape(records["target"].shape)
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
