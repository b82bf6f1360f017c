"""Integer features, such as tokens: whole numbers from 0 on, that stay what they are.

Letters: N rows of a piece, I features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsgd.data.manifest import Statistics
from distsgd.data.options import Dtype
from distsgd.data.prepare.columns import Piece, RawRows
from distsgd.errors import DataError


class IntegerFeatures:
    """Holds the features of raw rows to their rules, piece by piece.

    A float tells neighbouring whole numbers apart below 2^24 in float32, and below 2^53 in float64.
    """

    def __init__(self, rows: RawRows, dtype: Dtype) -> None:
        self._rows, self._dtype = rows, dtype
        self._highest = (-1.0, 0, 0)  # Of the held-out rows: value, row and feature.

    def check(self, piece: Piece) -> None:
        """Raise DataError for the first feature that is no whole number from 0 on, or too large."""
        x_NI, end = piece.x_NI, 2.0 ** (np.finfo(self._dtype).nmant + 1)
        wrong_NI = ~((x_NI >= 0) & (x_NI < end) & (x_NI == np.floor(x_NI)))
        if not wrong_NI.any():
            return
        row, i = np.argwhere(wrong_NI)[0].tolist()
        value = float(x_NI[row, i])
        rule = 'must be an integer of 0 or more, since feature_kind is "integer"'
        mend = 'correct or remove the row, or set [data] feature_kind to "number"'
        if value >= end and value == value // 1:
            rule = f"must be below {end:.0f}, from where on {self._dtype} has not all integers"
            mend = "number the values from 0 on without gaps"
            mend += ', or set [train] dtype to "float64"' if self._dtype == "float32" else ""
        shown = f"{value:.0f}" if value == value // 1 else repr(value)
        raise self._error(piece.first_row + row, i, f"{shown} {rule} ({mend})")

    def see_held_out(self, piece: Piece, test_N: NDArray[np.bool_]) -> None:
        """Take notice of the held-out rows of a piece; the others are in the statistics."""
        x_MI = piece.x_NI[test_N]
        if x_MI.size and (highest := float(x_MI.max())) > self._highest[0]:
            place, i = divmod(int(x_MI.argmax()), x_MI.shape[1])
            self._highest = (highest, piece.first_row + int(np.flatnonzero(test_N)[place]), i)

    def check_held_out(self, statistics: Statistics) -> None:
        """Raise DataError where a held-out row has a higher one than all training rows."""
        value, row, i = self._highest
        if value > (most := max(statistics.maximum)):
            raise self._error(row, i, f"{value:.0f} is in held-out rows only; {_untrained(most)}")

    def check_known(self, piece: Piece, num_levels: int) -> None:
        """Raise DataError for the first feature of new rows that is `num_levels` or more."""
        high_NI = piece.x_NI >= num_levels
        if high_NI.any():
            row, i = np.argwhere(high_NI)[0].tolist()
            reason = f"{float(piece.x_NI[row, i]):.0f} is unknown; {_untrained(num_levels - 1)}"
            raise self._error(piece.first_row + row, i, reason)

    def _error(self, row: int, i: int, reason: str) -> DataError:
        return self._rows.error(row, self._rows.schema.feature_names[i], reason)


def _untrained(most: float) -> str:
    rule = f"must be at most {most:.0f}, the highest integer of the training rows"
    return f"{rule} (give such a one training rows, or put a known one in its place)"
