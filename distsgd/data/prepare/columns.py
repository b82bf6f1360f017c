"""Raw columns as float64 rows and label arrays: the border where every raw value is checked.

Letters: N rows of a piece, I features, K label columns. Pieces are cut at fixed row numbers,
whatever files and row groups the rows came in, so that nothing computed from a piece depends on how
the data was stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distsgd.data.prepare.labels import UnknownClassError, Vocabulary
from distsgd.data.prepare.readings import Reading, Readings
from distsgd.data.prepare.schema import TableSchema, check_schema
from distsgd.data.sources.source import TableSource, is_own
from distsgd.data.tables import arrow_errors, is_text, numbers, storage
from distsgd.errors import DataError, shortened

Float64 = NDArray[np.float64]

PIECE_ROWS = 65_536
PIECE_BYTES = 16 << 20
# Reading so little again would take longer than keeping it.
KEPT_BYTES = 128 << 20
# Squares of larger values, summed over ten billion rows, could overflow float64.
LARGEST_FEATURE = 1e145


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring raw rows; the arrays are overwritten by the next piece.

    Attributes:
        first_row: Number of the first row, over all sources.
        x_NI: Raw features, float64.
        target: Class indices int64 ``[N]``, raw numbers float64 ``[N, K]``, or None.
    """

    first_row: int
    x_NI: Float64
    target: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows as they came in one batch: checked features, and labels that are still to be read."""

    decoder: _Decoder
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
        limit = piece_rows(self.schema.num_features)
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
                step = limit if self.schema.list_width is not None else max(batch.num_rows, 1)
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
        decoder = _Decoder(name, row, self.schema, self._booleans_are_integers)
        with arrow_errors(name):
            labels = tuple(batch.column(column) for column in self.schema.label)
            return _Block(decoder, decoder.features(batch), labels)


def piece_rows(num_features: int) -> int:
    """Rows of a piece: the largest power of two within 65,536 rows and 16 MiB of float64."""
    fitting = max(1, PIECE_BYTES // max(8 * num_features, 8))
    return min(PIECE_ROWS, 1 << (fitting.bit_length() - 1))


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Reads record batches of one source whose first row has number `row` in it."""

    name: str
    row: int
    schema: TableSchema
    booleans_are_integers: bool

    def features(self, batch: pa.RecordBatch) -> Float64:
        x_NI = np.empty((batch.num_rows, self.schema.num_features))
        with np.errstate(invalid="ignore"):  # A NaN that signals; it is refused below.
            if self.schema.list_width is not None:
                self._list_into(storage(batch.column(self.schema.columns[0])), x_NI)
            else:
                self._columns_into(batch, x_NI)
        # NaN fails both comparisons.
        if x_NI.size and not (x_NI.min() >= -LARGEST_FEATURE and x_NI.max() <= LARGEST_FEATURE):
            row, i = np.argwhere(~(np.abs(x_NI) <= LARGEST_FEATURE))[0].tolist()
            raise self._error(self.schema.feature_names[i], row, _bad_number(x_NI[row, i]))
        return x_NI

    def target(
        self, labels: Sequence[pa.Array], vocabulary: Vocabulary | None
    ) -> NDArray[Any] | None:
        if not labels:
            return None
        if vocabulary is None:
            y_NK = np.empty((len(labels[0]), len(labels)))
            for k, (column, values) in enumerate(zip(self.schema.label, labels, strict=True)):
                self._check_nulls(column, values, "label")
                with np.errstate(invalid="ignore"):
                    y_NK[:, k] = numbers(values)
                self._check_finite(column, y_NK[:, k])
            return y_NK
        column, values = self.schema.label[0], storage(labels[0])
        self._check_nulls(column, values, "label")
        try:
            return vocabulary.encode(self._class_values(column, values))
        except UnknownClassError as error:
            shown = shortened(repr(error.value))
            raise self._error(column, error.row, f"label {shown} {error.reason}") from None

    def _class_values(self, column: str, values: pa.Array) -> pa.Array:
        """Labels of classes, so that equal ones are equal however they are stored."""
        if pa.types.is_dictionary(values.type):
            if is_text(values.type.value_type):
                # Not written out: one long text may stand for very many rows.
                return values
            values = storage(values.dictionary_decode())
        if pa.types.is_boolean(values.type) and self.booleans_are_integers:
            return values.cast(pa.int8())
        if pa.types.is_decimal(values.type):
            return self._whole(column, values)
        if pa.types.is_floating(values.type):
            numbers_N = values.to_numpy(zero_copy_only=False)
            self._check_finite(column, numbers_N)
            self._check_distinct(column, numbers_N)
        return values

    def _whole(self, column: str, values: pa.Array) -> pa.Array:
        """Decimals as integers; DataError where one is none."""
        # Wide first: Arrow says of every decimal32 that it does not fit an int64.
        values = values.cast(pa.decimal256(76, max(values.type.scale, 0)))
        if not _is_whole(values):
            row = next(i for i in range(len(values)) if not _is_whole(values.slice(i, 1)))
            rule = "classes are text, booleans or whole numbers of at most 64 bits"
            way_out = 'write it as text, or train a regression (label kind "number") on quantities'
            reason = f"label {values[row].as_py()} is no class: {rule}; {way_out}"
            raise self._error(column, row, reason)
        return values.cast(pa.int64())

    def _check_distinct(self, column: str, values: NDArray[Any]) -> None:
        """Refuse floats so large that neighbouring whole numbers have become one."""
        digits = np.finfo(values.dtype).nmant + 1
        merged = np.abs(values) >= 2.0**digits
        if merged.any():
            row = int(np.flatnonzero(merged)[0])
            rule = f"from 2^{digits} on neighbouring whole numbers are one in {values.dtype}"
            reason = f"label {float(values[row]):.17g} is no class: {rule}; write it as an integer"
            raise self._error(column, row, reason)

    def _columns_into(self, batch: pa.RecordBatch, x_NI: Float64) -> None:
        """Columns of numbers, neighbours of one type in one call: there may be thousands."""
        place_of = {name: place for place, name in enumerate(batch.schema.names)}
        arrays = batch.columns
        wanted = [storage(arrays[place_of[name]]) for name in self.schema.columns]
        start = 0
        for kind, same in groupby(wanted, key=lambda values: values.type):
            group = list(same)
            end = start + len(group)
            if any(values.null_count for values in group) or pa.types.is_dictionary(kind):
                for column, values in zip(self.schema.columns[start:end], group, strict=True):
                    self._check_nulls(column, values, "feature")
            if pa.types.is_dictionary(kind):
                for i, values in enumerate(group, start):
                    x_NI[:, i] = numbers(values)
            else:
                joined = numbers(pa.concat_arrays(group) if len(group) > 1 else group[0])
                x_NI[:, start:end] = joined.reshape(len(group), -1).T
            start = end

    def _list_into(self, values: pa.Array, x_NI: Float64) -> None:
        column, width = self.schema.columns[0], self.schema.list_width
        self._check_nulls(column, values, "feature list")
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        if (lengths != width).any():
            row = int(np.flatnonzero(lengths != width)[0])
            rule = f"must be {width}, as in the first training row; make all lists equally long"
            reason = f"list of {lengths[row]} values; {rule}"
            raise self._error(column, row, reason)
        flat = storage(values.flatten())
        nulls = flat.is_null().to_numpy(zero_copy_only=False)
        if nulls.any():
            row = int(np.flatnonzero(nulls)[0]) // (width or 1)
            raise self._error(column, row, "null in the list; fill it in or remove the row")
        x_NI[:] = numbers(flat).reshape(x_NI.shape)

    def _check_nulls(self, column: str, values: pa.Array, role: str) -> None:
        # A dictionary may hold the null itself: is_null looks through, null_count does not.
        if values.null_count or pa.types.is_dictionary(values.type):
            nulls = values.is_null().to_numpy(zero_copy_only=False)
            if nulls.any():
                row = int(np.flatnonzero(nulls)[0])
                raise self._error(column, row, f"null {role}; fill it in or remove the row")

    def _check_finite(self, column: str, values: NDArray[Any]) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise self._error(
                column,
                row,
                f"label {float(values[row])!r} is not a finite number; correct or remove the row",
            )

    def _error(self, column: str, row: int, reason: str) -> DataError:
        return DataError(self.name, f"column {column!r}, row {self.row + row}: {reason}")


def _is_whole(values: pa.Array) -> bool:
    try:
        values.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _bad_number(value: float) -> str:
    if np.isfinite(value):
        rule = f"at most {LARGEST_FEATURE:g}: its square must be finite"
        return f"{float(value)!r} is too large ({rule}); scale the column"
    return f"{float(value)!r} is not a finite number; fill it in or remove the row"


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any] | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
