"""Which rows are held out, which shard a row goes to: pure functions of seed and row number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsgd.chance import Purpose, UInt64, raw_integers

KEYED_ROWS = 65_536


class KeyedRows:
    """One random integer a row, keyed in pieces of 65,536 rows; the piece read last is kept."""

    def __init__(self, seed: int, purpose: Purpose) -> None:
        self._seed, self._purpose = seed, purpose
        self._piece = -1
        self._integers = np.empty(0, np.uint64)

    def integers(self, first: int, count: int) -> UInt64:
        """Of rows ``first`` to ``first + count - 1``, uniform uint64 ``[count]``."""
        parts: list[UInt64] = []
        row, end = first, first + count
        while row < end:
            piece, offset = divmod(row, KEYED_ROWS)
            if piece != self._piece:
                self._integers = raw_integers(self._seed, self._purpose, piece, count=KEYED_ROWS)
                self._piece = piece
            part = self._integers[offset : offset + end - row]
            parts.append(part)
            row += len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)


class Split:
    """Which rows are held out: a random share of the first `train_source_rows`, and all others."""

    def __init__(self, seed: int, test_fraction: float, train_source_rows: int) -> None:
        self._keyed = KeyedRows(seed, Purpose.SPLIT)
        self._threshold = np.uint64(int(test_fraction * 2.0**64))
        self._train_source_rows = train_source_rows

    def is_test(self, first: int, count: int) -> NDArray[np.bool_]:
        """Whether rows ``first`` to ``first + count - 1`` are held out; shape ``[count]``."""
        test_N = np.arange(first, first + count) >= self._train_source_rows
        if self._threshold:
            test_N |= self._keyed.integers(first, count) < self._threshold
        return test_N
