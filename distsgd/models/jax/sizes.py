"""To how many rows a block is padded, so that few programs are compiled. No I/O here."""

from __future__ import annotations

import numpy as np

from distsgd.base.arrays import Array

_EXACT, _PER_OCTAVE = 8, 4


def padded_rows(num_rows: int) -> int:
    """The rows that a program for `num_rows` rows has: up to 8 as many, then 4 sizes an octave.

    It depends on the number of rows alone, so bits do.

    >>> [padded_rows(rows) for rows in (1, 7, 8, 9, 50, 64, 65, 250, 256)]
    [1, 7, 8, 10, 56, 64, 80, 256, 256]
    """
    if num_rows <= _EXACT:
        return num_rows
    grain = (1 << (num_rows - 1).bit_length()) // (2 * _PER_OCTAVE)
    return -(-num_rows // grain) * grain


class Padded:
    """An array ``[N, ...]``, and the same with rows added.

    A row that is added is the last one again, so that it brings no number of its own; what comes of
    it is weighted with 0 and cut off.
    """

    def __init__(self, array: Array, dtype: np.dtype[np.generic]) -> None:
        self._given, rows = array, padded_rows(len(array))
        self._is_given = rows == len(array) and array.dtype == dtype
        self.array = array if self._is_given else np.empty((rows, *array.shape[1:]), dtype)

    def current(self) -> Array:
        """With the numbers that the given array has now, ``[padded_rows(N), ...]``."""
        if not self._is_given:
            self.array[: len(self._given)] = self._given
            self.array[len(self._given) :] = self._given[-1]
        return self.array
