"""The file of a shard: one Arrow IPC file with one record batch, read by mapping it into memory.

Letters: N rows of the shard, I features, K label columns.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from distsgd.data.manifest import Manifest, ShardEntry
from distsgd.errors import ShardError


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A row: features, and as target `num_numbers` numbers, or a class index where that is 0."""

    num_features: int
    num_numbers: int
    dtype: str

    @classmethod
    def of(cls, manifest: Manifest) -> RowFormat:
        """The format of a data set's rows."""
        num_numbers = 0 if manifest.label_kind == "class" else len(manifest.labels)
        return cls(manifest.num_features, num_numbers, manifest.dtype)

    @property
    def record(self) -> np.dtype[Any]:
        """A row as a packed record, for files that are written row by row."""
        target = (
            ("target", "<i8")
            if not self.num_numbers
            else ("target", self.dtype, (self.num_numbers,))
        )
        fields = [
            ("x", self.dtype, (self.num_features,)),
            target,
            ("squared_norm", self.dtype),
            ("source_row", "<i8"),
        ]
        return np.dtype(fields)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a shard."""
        number = pa.float32() if self.dtype == "float32" else pa.float64()
        target = pa.list_(number, self.num_numbers) if self.num_numbers else pa.int64()
        columns = [("x", pa.list_(number, self.num_features)), ("target", target)]
        return pa.schema([*columns, ("squared_norm", number), ("source_row", pa.int64())])


@dataclass(frozen=True, slots=True)
class ShardArrays:
    """Read-only arrays of a shard, zero-copy from its file.

    Attributes:
        x_NI: Standardised features.
        target: Class indices int64 ``[N]`` or numbers ``[N, K]``.
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
    return ShardArrays(x_NI, target, squared_norms_N, source_rows_N)


def _view(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=True)
        return np.asarray(flat).reshape(-1, column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=True))
