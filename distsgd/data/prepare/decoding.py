"""Raw columns as float64 rows and label arrays: the border where every raw value is checked.

Letters: N rows of a record batch, I features, K numbers or classes of a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distsgd.data.prepare.labels import UnknownClassError, Vocabulary
from distsgd.data.prepare.schema import TableSchema
from distsgd.data.tables import is_text, numbers, storage
from distsgd.errors import DataError, shortened

Float64 = NDArray[np.float64]

# Squares of larger values, summed over ten billion rows, could overflow float64.
LARGEST_FEATURE = 1e145


@dataclass(frozen=True, slots=True)
class Decoder:
    """Reads record batches of one source whose first row has number `row` in it.

    With `list_width` the columns are the values of lists, so many to a row.
    """

    name: str
    row: int
    schema: TableSchema
    booleans_are_integers: bool
    list_width: int | None = None

    def features(self, batch: pa.RecordBatch) -> Float64:
        """The features of all rows, finite numbers."""
        x_NI = np.empty((batch.num_rows, self.schema.num_features))
        with np.errstate(invalid="ignore"):  # A NaN that signals; it is refused below.
            if (width := self.schema.list_width) is not None:
                column = self.schema.columns[0]
                flat = self._flat(column, storage(batch.column(column)), width, "feature")
                x_NI[:] = numbers(flat).reshape(x_NI.shape)
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
        """Class indices by `vocabulary`, numbers without one; None without labels.

        Returns:
            int64 ``[N]``, of a list of classes ``[N, K]``; or float64 ``[N, K]``.
        """
        width = self.schema.label_width
        if width is not None and labels:
            of_lists = replace(self, list_width=width)
            flat = self._flat(self.schema.label[0], storage(labels[0]), width, "label")
            target = of_lists._values((flat,), vocabulary)  # noqa: SLF001 -- of another of its class.
            return target.reshape(-1, width)
        return self._values(labels, vocabulary) if labels else None

    def _values(self, labels: Sequence[pa.Array], vocabulary: Vocabulary | None) -> NDArray[Any]:
        """Class indices ``[N]`` or numbers ``[N, K]`` of columns of single values."""
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

    def _flat(self, column: str, values: pa.Array, width: int, role: str) -> pa.Array:
        """The values of lists, one list after the other; DataError unless all have `width`."""
        self._check_nulls(column, values, f"{role} list")
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
        return flat

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

    def _error(self, column: str, place: int, reason: str) -> DataError:
        name, row = repr(column), place
        if self.list_width is not None:
            row, i = divmod(place, self.list_width)
            name = repr(f"{column}[{i}]")
        return DataError(self.name, f"column {name}, row {self.row + row}: {reason}")


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
