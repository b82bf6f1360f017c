"""The rows of several sources as one sequence, in pieces; each value is checked by `decoding`.

Letters: N rows of a piece, I features, K numbers or classes of a label. Pieces are cut at fixed row
numbers, whatever files and row groups the rows came in, so that nothing computed from a piece
depends on how the data was stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.data.prepare.decoding import Decoder
from distsgd.data.prepare.labels import Vocabulary
from distsgd.data.prepare.readings import Reading, Readings
from distsgd.data.prepare.schema import TableSchema, check_schema
from distsgd.data.sources.source import TableSource, is_own
from distsgd.data.tables import arrow_errors
from distsgd.errors import DataError

Float64 = NDArray[np.float64]

PIECE_ROWS = 65_536
PIECE_BYTES = 16 << 20
# Reading so little again would take longer than keeping it.
KEPT_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring raw rows; the arrays are overwritten by the next piece.

    Attributes:
        first_row: Number of the first row, over all sources.
        x_NI: Raw features, float64.
        target: Class indices int64, ``[N]`` or ``[N, K]`` of lists; raw numbers float64 ``[N, K]``;
            or None.
    """

    first_row: int
    x_NI: Float64
    target: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows as they came in one batch: checked features, and labels that are still to be read."""

    decoder: Decoder
    x_NI: Float64
    labels: tuple[pa.Array, ...]

    @property
    def num_bytes(self) -> int:
        return self.x_NI.nbytes + sum(int(values.nbytes) for values in self.labels)


class RawRows:
    """The rows of several sources as one sequence.

    Args:
        sources: Where they come from; those without rows are not looked at.
        schema: Their columns.
        reads_again: Whether rows that take little memory are kept for the next reading, and what a
            source of the user's own gives is held against what it gave before.
        readings: What it gave before; nothing unless given.
    """

    def __init__(
        self,
        sources: Sequence[TableSource],
        schema: TableSchema,
        *,
        reads_again: bool = False,
        readings: Readings | None = None,
    ) -> None:
        self.schema = schema
        self._reads_again = reads_again
        own = [source.name for source in sources if is_own(source)] if reads_again else []
        self._readings = Readings(own[0]) if own else readings
        self._kept: list[_Block] = []
        self._sources = sources
        self._ends = list(accumulate(source.num_rows for source in sources))
        types = check_schema(sources, schema)
        # True and 1 are one class, which must have one name.
        self._booleans_are_integers = not all(map(pa.types.is_boolean, types))

    @property
    def num_rows(self) -> int:
        """Rows of all sources."""
        return self._ends[-1]

    def labels_only(self) -> RawRows:
        """The same rows without features."""
        schema = replace(self.schema, columns=(), list_width=None, types=None)
        return RawRows(self._sources, schema, readings=self._readings)

    def pieces(self, vocabulary: Vocabulary | None) -> Iterator[Piece]:
        """All rows in order, in pieces of fixed length; DataError at the first unusable row.

        Args:
            vocabulary: Turns label values into class indices; None for number labels.
        """
        limit = piece_rows(max(self.schema.num_features, self.schema.label_width or 0))
        x_NI = np.empty((min(limit, self.num_rows), self.schema.num_features))
        targets: list[NDArray[Any]] = []
        first, filled = 0, 0
        reading = Reading()
        for block in self._kept or self._blocks(limit):
            block_NI = block.x_NI
            with arrow_errors(block.decoder.name):
                target = block.decoder.target(block.labels, vocabulary)
            if self._readings is not None:
                names = None if vocabulary is None else vocabulary.names
                reading.add(block_NI, target, names)
            start = 0
            while start < len(block_NI):
                count = min(limit - filled, len(block_NI) - start)
                x_NI[filled : filled + count] = block_NI[start : start + count]
                if target is not None:
                    targets.append(target[start : start + count])
                start, filled = start + count, filled + count
                if filled == limit:
                    yield Piece(first, x_NI, _joined(targets))
                    first, filled, targets = first + filled, 0, []
        if filled:
            yield Piece(first, x_NI[:filled], _joined(targets))
        if self._readings is not None:
            self._readings.end(reading)

    def locate(self, row: int) -> tuple[str, int]:
        """Name of the source of a row and the row's number in it."""
        index = next(i for i, end in enumerate(self._ends) if row < end)
        return self._sources[index].name, row - (self._ends[index] - self._sources[index].num_rows)

    def error(self, row: int, column: str, reason: str) -> DataError:
        """The error that names a row by its source and number in it."""
        name, row_in_source = self.locate(row)
        return DataError(name, f"column {column!r}, row {row_in_source}: {reason}")

    def _blocks(self, limit: int) -> Iterator[_Block]:
        """Rows as they come, cut where a batch of lists could be too large."""
        columns = (*self.schema.columns, *self.schema.label)
        kept: list[_Block] = []
        room = KEPT_BYTES if self._reads_again else -1
        for source in self._sources:
            row = 0
            for batch in source.batches(columns) if source.num_rows else ():
                # A few bytes can say that all rows are one long list.
                step = limit if self.schema.has_lists else max(batch.num_rows, 1)
                for start in range(0, batch.num_rows, step):
                    block = self._block(source.name, row + start, batch.slice(start, step))
                    room -= block.num_bytes
                    if room >= 0:
                        kept.append(block)
                    else:
                        kept.clear()
                    yield block
                row += batch.num_rows
        self._kept = kept

    def _block(self, name: str, row: int, batch: pa.RecordBatch) -> _Block:
        decoder = Decoder(name, row, self.schema, self._booleans_are_integers)
        with arrow_errors(name):
            labels = tuple(batch.column(column) for column in self.schema.label)
            return _Block(decoder, decoder.features(batch), labels)


def piece_rows(num_features: int) -> int:
    """Rows of a piece: the largest power of two within 65,536 rows and 16 MiB of float64."""
    fitting = max(1, PIECE_BYTES // max(8 * num_features, 8))
    return min(PIECE_ROWS, 1 << (fitting.bit_length() - 1))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any] | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
