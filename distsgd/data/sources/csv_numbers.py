"""Texts of a CSV file as numbers and booleans: which can be, and turning them into those.

What would lose a character as a number and is rather a code stays text: ``007``, ``0x1F``,
``+4915112345``. No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distsgd.data.options import NULL_NUMBERS, CsvSettings

_BOOLEANS = pa.array(["0", "1", "false", "true", None])
# A plus and this many digits is the number of a telephone.
_DIALLED = r"^\+\d{7,}$"
_DECIMAL_ZEROS = r"\.0*$"
_ZERO, _NINE, _X, _PLUS, _MINUS = b"09x+-"


@dataclass(frozen=True, slots=True)
class ColumnKind:
    """What all values of a column are: `type` is null where there is none; the narrowest first.

    Attributes:
        type: null, int64, float64, bool or string.
        can_be_boolean: Whether all are 0, 1, true or false: of ``0`` and ``1`` the type is int64.
        first_text: Row and text of the first value that is no number, or rather a code.
    """

    type: pa.DataType
    can_be_boolean: bool
    first_text: tuple[int, str] | None = None


def joint_type(kinds: Iterable[ColumnKind]) -> pa.DataType:
    """The narrowest type that the values of one column in several files have."""
    kinds = list(kinds)
    types = {kind.type for kind in kinds} - {pa.null()}
    if types <= {pa.int64(), pa.float64()}:
        return pa.float64() if pa.float64() in types else pa.int64()
    every = all(kind.can_be_boolean for kind in kinds)
    return pa.bool_() if every else pa.string()


class ColumnScan:
    """What the columns of one file can be, batch by batch."""

    def __init__(self, num_columns: int, settings: CsvSettings) -> None:
        self._num_columns, self._settings = num_columns, settings
        self._integers, self._floats = list(range(num_columns)), list[int]()
        self._booleans = list(range(num_columns))
        self._has_values = np.zeros(num_columns, bool)
        self._first_texts: dict[int, tuple[int, str]] = {}
        self.num_rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at a batch of all columns as text."""
        if batch.num_rows:
            self._narrow_numbers(batch)
            self._narrow_booleans(batch)
        self.num_rows += batch.num_rows

    def kinds(self) -> list[ColumnKind]:
        """Of each column, all rows seen."""
        types: list[pa.DataType] = [pa.string()] * self._num_columns
        narrowest = (self._booleans, pa.bool_()), (self._floats, pa.float64())
        for places, kind in (*narrowest, (self._integers, pa.int64())):
            for place in places:
                types[place] = kind if self._has_values[place] else pa.null()
        booleans, texts = set(self._booleans), self._first_texts
        return [ColumnKind(kind, i in booleans, texts.get(i)) for i, kind in enumerate(types)]

    def _narrow_numbers(self, batch: pa.RecordBatch) -> None:
        places = [*self._integers, *self._floats]
        if not places:
            return
        values = as_numerals(_joined(batch, places), self._settings)
        of_column = dict(zip(places, _cut(values, len(places)), strict=True))
        by_column = (len(places), -1)
        filled = values.is_valid().to_numpy(zero_copy_only=False).reshape(by_column).any(axis=1)
        self._has_values[np.array(places)[filled]] = True
        codes, zeros = (
            set(np.array(places)[mask.reshape(by_column).any(axis=1)].tolist())
            for mask in _codes_and_negative_zeros(values)
        )
        candidates = [place for place in self._integers if place not in codes | zeros]
        integers = _that_can_be(pa.int64(), of_column, candidates)
        self._integers = integers
        others = codes.union(integers)
        candidates = [place for place in places if place not in others]
        self._floats = _that_can_be(pa.float64(), of_column, candidates)
        for place in set(places).difference(self._integers, self._floats):
            row = _first_that_is_no_number(of_column[place])
            text = trimmed(batch.column(place).slice(row, 1), self._settings, numbers=True)
            self._first_texts[place] = (self.num_rows + row, text[0].as_py())

    def _narrow_booleans(self, batch: pa.RecordBatch) -> None:
        places = self._booleans
        if not places:
            return
        values = trimmed(_joined(batch, places), self._settings, numbers=True)
        fits = pc.is_in(pc.ascii_lower(values), value_set=_BOOLEANS)
        fits = fits.to_numpy(zero_copy_only=False).reshape(len(places), -1).all(axis=1)
        self._booleans = [place for place, fit in zip(places, fits, strict=True) if fit]


def trimmed(values: pa.Array, settings: CsvSettings, *, numbers: bool) -> pa.Array:
    """Text without space around it, and null where it stands for a missing value."""
    values = pc.utf8_trim_whitespace(values)
    texts = settings.null_values
    if texts is None:
        texts = NULL_NUMBERS if numbers else ()
    nulls = pc.is_in(values, value_set=pa.array(["", *texts])) if texts else pc.equal(values, "")
    return pc.if_else(nulls, None, values)


def as_numerals(values: pa.Array, settings: CsvSettings) -> pa.Array:
    """Trimmed text with a point before the decimals; what has another point is no number."""
    values = trimmed(values, settings, numbers=True)
    if settings.decimal == ",":
        values = pc.replace_substring(values, ".", "?")
        values = pc.replace_substring(values, ",", ".")
    return values


def converted(columns: Sequence[pa.Array], kind: pa.DataType, settings: CsvSettings) -> list[Any]:
    """Columns of text as values of `kind`: int64, float64, bool or string.

    Whole numbers may be written with decimal zeros. Raises ArrowInvalid for what does not fit.
    """
    joined = pa.concat_arrays(columns)
    if pa.types.is_string(kind):
        values = trimmed(joined, settings, numbers=False)
    elif pa.types.is_boolean(kind):
        values = trimmed(joined, settings, numbers=True).cast(kind)
    else:
        values = as_numerals(joined, settings)
        try:
            values = values.cast(kind)
        except pa.ArrowInvalid:
            if not pa.types.is_integer(kind):
                raise
            values = pc.replace_substring_regex(values, _DECIMAL_ZEROS, "").cast(kind)
    return _cut(values, len(columns))


def _first_that_is_no_number(numerals: pa.Array) -> int:
    """Place of the first text that is no number, or rather a code; there is one."""
    codes = np.flatnonzero(_codes_and_negative_zeros(numerals)[0])
    low, high = 0, int(codes[0]) if len(codes) else len(numerals)
    if _casts(pa.float64(), numerals.slice(0, high)):
        return high
    while high - low > 1:  # Those before `low` can be cast, those before `high` cannot.
        middle = (low + high) // 2
        if _casts(pa.float64(), numerals.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def _codes_and_negative_zeros(values: pa.Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each text whether it begins like a code, and whether it is ``-0``; false for nulls."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset :][: len(values) + 1]
    texts = values.buffers()[2]
    data = np.frombuffer(texts if texts is not None and texts.size else b"\0", np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    lead = data.take(starts, mode="clip")
    codes, zeros = np.zeros(len(values), bool), np.zeros(len(values), bool)
    plus = (lead == _PLUS) & (lengths > 0)
    candidates = np.flatnonzero((lead == _ZERO) | (lead == _MINUS) | plus)
    at = starts[candidates] + (lead[candidates] != _ZERO)
    second, third = data.take(at, mode="clip"), data.take(at + 1, mode="clip")
    follows = ((third >= _ZERO) & (third <= _NINE)) | ((third | 0x20) == _X)
    num_digits = lengths[candidates] - (lead[candidates] != _ZERO)
    codes[candidates] = (second == _ZERO) & follows & (num_digits > 1)
    is_negative = (lead[candidates] == _MINUS) & (num_digits == 1)
    zeros[candidates] = (second == _ZERO) & is_negative
    if plus.any():
        dialled = pc.match_substring_regex(values, _DIALLED).fill_null(fill_value=False)
        codes |= dialled.to_numpy(zero_copy_only=False)
    return codes, zeros


def _casts(kind: pa.DataType, values: pa.Array) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _that_can_be(kind: pa.DataType, by_place: dict[int, pa.Array], places: list[int]) -> list[int]:
    """Those of the columns at `places` that can be cast to `kind`."""
    if not places or _casts(kind, pa.concat_arrays([by_place[place] for place in places])):
        return places
    if len(places) == 1:
        return []
    half = len(places) // 2
    return [
        *_that_can_be(kind, by_place, places[:half]),
        *_that_can_be(kind, by_place, places[half:]),
    ]


def _joined(batch: pa.RecordBatch, places: Sequence[int]) -> pa.Array:
    """The values of some columns, one column after the other: thousands are one call each."""
    return pa.concat_arrays([batch.column(place) for place in places])


def _cut(values: pa.Array, num_columns: int) -> list[pa.Array]:
    """What was joined."""
    num_rows = len(values) // num_columns
    return [values.slice(i * num_rows, num_rows) for i in range(num_columns)]
