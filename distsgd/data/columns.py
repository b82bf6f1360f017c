"""Raw columns as float64 rows and label arrays: the border where every raw value is checked.

Letters: N rows of a piece, I features, K label columns. Pieces are cut at fixed row numbers,
whatever files and row groups the rows came in, so that nothing computed from a piece depends on how
the data was stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distsgd.data.labels import UnknownClassError, Vocabulary, is_number, is_text
from distsgd.data.layout import Layout, check_layout, plain_type
from distsgd.data.source import TableSource, arrow_errors
from distsgd.errors import DataError

Float64 = NDArray[np.float64]

PIECE_ROWS = 65_536
PIECE_BYTES = 16 << 20
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


class RawRows:
    """The rows of several sources as one sequence."""

    def __init__(self, sources: Sequence[TableSource], layout: Layout) -> None:
        self.layout = layout
        self._sources = sources
        self._ends = list(accumulate(source.num_rows for source in sources))
        for source in sources:
            check_layout(source, layout)

    @property
    def num_rows(self) -> int:
        """Rows of all sources."""
        return self._ends[-1]

    def labels_only(self) -> RawRows:
        """The same rows without features."""
        return RawRows(self._sources, replace(self.layout, columns=(), list_width=None, types=None))

    def pieces(self, vocabulary: Vocabulary | None) -> Iterator[Piece]:
        """All rows in order, in pieces of fixed length; DataError at the first unusable row.

        Args:
            vocabulary: Turns label values into class indices; None for number labels.
        """
        limit = piece_rows(self.layout.num_features)
        x_NI = np.empty((min(limit, self.num_rows), self.layout.num_features))
        targets: list[NDArray[Any]] = []
        first, filled = 0, 0
        for source, row, batch in self._batches():
            start = 0
            while start < batch.num_rows:
                part = batch.slice(start, limit - filled)
                decoder = _Decoder(source.name, row + start, self.layout)
                with arrow_errors(source.name):
                    decoder.features_into(part, x_NI[filled : filled + part.num_rows])
                    targets += decoder.labels(part, vocabulary)
                start, filled = start + part.num_rows, filled + part.num_rows
                if filled == limit:
                    yield Piece(first, x_NI, _joined(targets))
                    first, filled, targets = first + filled, 0, []
        if filled:
            yield Piece(first, x_NI[:filled], _joined(targets))

    def locate(self, row: int) -> tuple[str, int]:
        """Name of the source of a row and the row's number in it."""
        index = next(i for i, end in enumerate(self._ends) if row < end)
        return self._sources[index].name, row - (self._ends[index] - self._sources[index].num_rows)

    def error(self, row: int, column: str, reason: str) -> DataError:
        """The error that names a row by its source and number in it."""
        name, row_in_source = self.locate(row)
        return DataError(name, f"column {column!r}, row {row_in_source}: {reason}")

    def _batches(self) -> Iterator[tuple[TableSource, int, pa.RecordBatch]]:
        columns = (*self.layout.columns, *self.layout.label)
        for source in self._sources:
            row = 0
            for batch in source.batches(columns):
                yield source, row, batch
                row += batch.num_rows


def piece_rows(num_features: int) -> int:
    """Rows of a piece: the largest power of two within 65,536 rows and 16 MiB of float64."""
    fitting = max(1, PIECE_BYTES // max(8 * num_features, 8))
    return min(PIECE_ROWS, 1 << (fitting.bit_length() - 1))


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Reads record batches of one source whose first row has number `row` in it."""

    name: str
    row: int
    layout: Layout

    def features_into(self, batch: pa.RecordBatch, x_NI: Float64) -> None:
        if self.layout.list_width is not None:
            self._list_into(batch.column(self.layout.columns[0]), x_NI)
        else:
            for i, column in enumerate(self.layout.columns):
                with np.errstate(invalid="ignore"):
                    x_NI[:, i] = self._numbers(column, batch.column(column))
        # NaN fails both comparisons.
        if x_NI.size and not (x_NI.min() >= -LARGEST_FEATURE and x_NI.max() <= LARGEST_FEATURE):
            row, i = np.argwhere(~(np.abs(x_NI) <= LARGEST_FEATURE))[0].tolist()
            raise self._error(self.layout.feature_names[i], row, _bad_number(x_NI[row, i]))

    def labels(self, batch: pa.RecordBatch, vocabulary: Vocabulary | None) -> list[NDArray[Any]]:
        if not self.layout.label:
            return []
        if vocabulary is None:
            y_NK = np.empty((batch.num_rows, len(self.layout.label)))
            for k, column in enumerate(self.layout.label):
                with np.errstate(invalid="ignore"):
                    y_NK[:, k] = self._numbers(column, batch.column(column), role="label")
                self._check_finite(column, y_NK[:, k])
            return [y_NK]
        column = self.layout.label[0]
        values = batch.column(column)
        if pa.types.is_dictionary(values.type) and is_text(values.type.value_type):
            # Not written out: one long text may stand for very many rows.
            self._check_nulls(column, values, "label")
        else:
            values = self._plain(column, values, "label")
        if pa.types.is_floating(values.type):
            self._check_finite(column, values.to_numpy(zero_copy_only=False))
        try:
            return [vocabulary.encode(values)]
        except UnknownClassError as error:
            shown = repr(error.value)
            shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
            raise self._error(column, error.row, f"label {shown} {error.reason}") from None

    def _list_into(self, values: pa.Array, x_NI: Float64) -> None:
        column, width = self.layout.columns[0], self.layout.list_width
        self._check_nulls(column, values, "feature list")
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        if (lengths != width).any():
            row = int(np.flatnonzero(lengths != width)[0])
            rule = f"must be {width} as in the first row; make all lists equally long"
            reason = f"list of {lengths[row]} values; {rule}"
            raise self._error(column, row, reason)
        flat = values.flatten()
        if flat.null_count:
            row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0]) // (
                width or 1
            )
            raise self._error(column, row, "null in the list; fill it in or remove the row")
        with np.errstate(invalid="ignore"):  # A NaN that signals; it is refused below.
            x_NI[:] = _as_numpy(flat).reshape(x_NI.shape)

    def _numbers(
        self, column: str, values: pa.Array, role: Literal["feature", "label"] = "feature"
    ) -> NDArray[Any]:
        return _as_numpy(self._plain(column, values, role))

    def _plain(self, column: str, values: pa.Array, role: str) -> pa.Array:
        self._check_nulls(column, values, role)
        return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values

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


def _as_numpy(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    assert is_number(plain_type(values.type)), "the layout was checked"
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _bad_number(value: float) -> str:
    if np.isfinite(value):
        rule = f"at most {LARGEST_FEATURE:g}: its square must be finite"
        return f"{float(value)!r} is too large ({rule}); scale the column"
    return f"{float(value)!r} is not a finite number; fill it in or remove the row"


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any] | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
