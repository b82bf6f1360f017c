"""What a run writes as it trains: history, evaluations, digests; a row for some of the steps.

The history is in immutable Parquet parts, named by their first and last step::

    history/part-000000000001-000000001000.parquet

Evaluations and digests are JSON, one object a line. Appending is part of the loop and costs a list
append; what was appended reaches the disk with the checkpoints.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from distsgd.base.arrays import Array
from distsgd.base.files import JsonLines, as_run_error, make_private_directory, write_bytes_atomic
from distsgd.errors import CheckpointError

_HEX = re.compile(r"[0-9a-f]{64}\Z")
_START = "0" * 64
_NAME = re.compile(r"part-(\d{12})-(\d{12})\.parquet\Z")
_MAX_SMALL_PARTS = 64
_LARGE_PART_SIZE_BYTES = 32 << 20


class HistoryRow(NamedTuple):
    """What is known of the steps up to `step`; its fields are the columns of the table.

    Attributes:
        step: Updates made so far.
        epoch: Passes over the rows, as the caller counts them.
        samples: Samples seen so far, a row as often as it was used.
        learning_rate: Of the last of these steps.
        train_loss: Mean over the samples of these steps, before their updates.
        squared_error: The same of Σ (prediction - goal)² over the outputs; null for losses that are
            no multiple of it.
        grad_norm: Norm of the mean gradient, before clipping.
        mean_squared_norm: Mean over the samples of their squared gradient norms.
        max_squared_norm: The largest of them.
        noise_scale: In samples; see `distsgd.statistics.NoiseScale`.
        seconds: Time spent training so far.
    """

    step: int
    epoch: float
    samples: int
    learning_rate: float
    train_loss: float
    squared_error: float | None
    grad_norm: float | None
    mean_squared_norm: float | None
    max_squared_norm: float | None
    noise_scale: float | None
    seconds: float


_INTEGERS = {"step", "samples"}
_NULLABLE = {"squared_error", "grad_norm", "mean_squared_norm", "max_squared_norm", "noise_scale"}
SCHEMA = pa.schema(
    [
        pa.field(
            name, pa.int64() if name in _INTEGERS else pa.float64(), nullable=name in _NULLABLE
        )
        for name in HistoryRow._fields
    ]
)


class HistoryWriter:
    """Writes the history in `directory`; rows come in the order of their steps."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._rows: list[HistoryRow] = []

    def append(self, row: HistoryRow) -> None:
        """Remember `row`."""
        self._rows.append(row)

    def flush(self) -> Path | None:
        """Write the remembered rows as one part, and merge small parts when there are many. Blocks.

        Returns:
            The part, or None where there was nothing to write.

        Raises:
            RunError: The operating system refuses; the rows stay remembered.
        """
        if not self._rows:
            return None
        make_private_directory(self.directory)
        columns = zip(*self._rows, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)
        ]
        path = self._write_part(pa.Table.from_arrays(arrays, schema=SCHEMA))
        self._rows.clear()
        return self._merge_small_parts() or path

    def drop_after(self, step: int) -> None:
        """Forget the rows beyond `step`, in memory and on disk, as a resume makes them anew.

        Raises:
            CheckpointError: A part is damaged.
            RunError: The operating system refuses.
        """
        self._rows = [row for row in self._rows if row.step <= step]
        for path, first, last in _parts(self.directory):
            if last <= step:
                continue
            if first <= step:
                table = _read_part(path, first, last)
                self._write_part(table.filter(table["step"].to_numpy() <= step))
            with as_run_error(path):
                path.unlink()

    def _write_part(self, table: Any) -> Path:
        first, last = table["step"][0].as_py(), table["step"][-1].as_py()
        path = self.directory / f"part-{first:012d}-{last:012d}.parquet"
        buffer = io.BytesIO()
        pq.write_table(
            table, buffer, compression="zstd", use_dictionary=False, write_page_checksum=True
        )
        write_bytes_atomic(path, buffer.getbuffer())
        return path

    def _merge_small_parts(self) -> Path | None:
        small = [
            part
            for part in _parts(self.directory)
            if part[0].stat().st_size < _LARGE_PART_SIZE_BYTES
        ]
        if len(small) <= _MAX_SMALL_PARTS:
            return None
        merged = self._write_part(_merge([_read_part(*part) for part in small]))
        for path, _, _ in small:
            if path != merged:
                with as_run_error(path):
                    path.unlink()
        return merged


def read_history(directory: Path | str) -> Any:
    """The history in `directory`, on disk.

    Returns:
        A `pyarrow.Table` with the columns of `HistoryRow`, ascending by step; empty where there is
        none yet.

    Raises:
        CheckpointError: A part is damaged; names it.
    """
    while True:
        parts = _parts(Path(directory))
        try:
            return _merge([_read_part(*part) for part in parts])
        except CheckpointError:
            if parts == _parts(Path(directory)):
                raise
            # Otherwise its writer merged or dropped parts while we read.


def _parts(directory: Path) -> list[tuple[Path, int, int]]:
    if not directory.is_dir():
        return []
    matches = ((path, _NAME.match(path.name)) for path in sorted(directory.iterdir()))
    return [(path, int(match[1]), int(match[2])) for path, match in matches if match]


def _merge(tables: list[Any]) -> Any:
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    # An interrupted merge leaves a row in two parts, so of equal steps one row counts.
    steps, first_rows = np.unique(table["step"].to_numpy(), return_index=True)
    is_in_order = len(steps) == len(table) and bool(np.all(np.diff(first_rows) > 0))
    return (
        table.combine_chunks() if is_in_order else table.take(pa.array(first_rows)).combine_chunks()
    )


def _read_part(path: Path, first: int, last: int) -> Any:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_shape(path, file, max_rows=last - first + 1)
            table = file.read()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise CheckpointError(
            path, f"cannot be read: {error} (remove it to lose these steps of the history)"
        ) from error
    steps = table["step"].to_numpy()
    if steps[0] != first or steps[-1] != last or np.any(np.diff(steps) <= 0):
        raise CheckpointError(
            path, f"its steps do not ascend from {first} to {last}, as it is named (damaged)"
        )
    return table


def _check_shape(path: Path, file: Any, *, max_rows: int) -> None:
    num_rows = file.metadata.num_rows
    if not 1 <= num_rows <= max_rows:
        raise CheckpointError(
            path, f"has {num_rows} rows; must have 1 to {max_rows}, as it is named"
        )
    if not file.schema_arrow.equals(SCHEMA):
        names = ", ".join(SCHEMA.names)
        raise CheckpointError(
            path, f"has the columns {file.schema_arrow.names}; must have {names}, of their types"
        )


class EvaluationRow(NamedTuple):
    """One evaluation; its fields are the columns of the table.

    Attributes:
        step: Updates made before it.
        epoch: Passes over the rows, finished or begun, as the caller counts them.
        test_loss: Mean over the held-out rows; None where it is not finite.
        test_accuracy: Share of them classified right; None where there are no classes.
        rows: Held-out rows.
    """

    step: int
    epoch: float
    test_loss: float | None
    test_accuracy: float | None
    rows: int


class EvaluationLog(JsonLines):
    """The evaluations at `path`, in the order of their steps; in memory until `flush`."""

    def append(self, row: EvaluationRow) -> None:
        """Remember `row`."""
        loss = row.test_loss
        finite = loss if loss is not None and math.isfinite(loss) else None
        self.append_object(row._replace(test_loss=finite)._asdict())

    def read(self) -> tuple[EvaluationRow, ...]:
        """The rows on disk.

        Raises:
            CheckpointError: A line is damaged; names it.
        """
        rows = []
        for number, line in self.read_objects():
            if line.keys() != set(EvaluationRow._fields):
                names = ", ".join(EvaluationRow._fields)
                raise self.damaged(number, f"has the fields {sorted(line)}; must have {names}")
            for name, value in line.items():
                may_be_null = name in {"test_loss", "test_accuracy"} and value is None
                if not may_be_null and type(value) not in {int, float}:
                    raise self.damaged(number, f"{name} is {value!r}; must be a number")
            rows.append(EvaluationRow(**line))
        return tuple(rows)


class DigestChain:
    """A hash of every (step, weights) so far.

    ``value = blake3(previous value || step as 8 bytes, little-endian || bytes of the weights)``. It
    starts at 32 zero bytes. Its value is also its state.

    Examples:
        >>> chain = DigestChain()
        >>> chain.extend(1, np.zeros(3, np.float32))[:16]
        '33eec26a0eb99807'
        >>> chain.value == DigestChain(chain.value).value
        True
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = _START) -> None:
        if not isinstance(value, str) or not _HEX.match(value):
            raise CheckpointError("digest", f"is {value!r}; must be 64 hexadecimal digits")
        self._value = bytes.fromhex(value)

    @property
    def value(self) -> str:
        """32 bytes in hexadecimal digits; `DigestChain(value)` continues from here."""
        return self._value.hex()

    def extend(self, step: int, weights: Array) -> str:
        """Take in the `weights` ``[P]`` after `step` updates; contiguous ones are not copied.

        Returns:
            The new value.
        """
        hasher = blake3(self._value)
        hasher.update(step.to_bytes(8, "little"))
        hasher.update(_bytes_of(weights))
        self._value = hasher.digest()
        return self._value.hex()


class DigestRow(NamedTuple):
    """The chain's value after `step` updates."""

    step: int
    digest: str


class DigestLog(JsonLines):
    """The values of a chain at `path`, in the order of their steps; in memory until `flush`."""

    def append(self, step: int, digest: str) -> None:
        """Remember a value."""
        self.append_object({"step": step, "digest": digest})

    def read(self) -> tuple[DigestRow, ...]:
        """The values on disk.

        Raises:
            CheckpointError: A line is damaged; names it.
        """
        rows = []
        for number, line in self.read_objects():
            digest = line.get("digest")
            if not isinstance(digest, str) or not _HEX.match(digest):
                raise self.damaged(number, f"digest is {digest!r}; must be 64 hexadecimal digits")
            rows.append(DigestRow(line["step"], digest))
        return tuple(rows)


def weights_digest(weights: Array) -> str:
    """blake3 of the bytes of `weights` ``[P]``: 64 hexadecimal digits, equal for equal bits only.

    Examples:
        >>> weights_digest(np.zeros(3, np.float32)) == weights_digest(np.zeros(3, np.float32))
        True
    """
    return blake3(_bytes_of(weights)).hexdigest()


def _bytes_of(weights: Array) -> memoryview:
    return np.ascontiguousarray(weights).reshape(-1).view(np.uint8).data
