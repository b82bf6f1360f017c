"""The memory that weights and partials lie in, as both sides of a transport see it. No I/O here.

Legend: P parameters, S slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsgd.base.arrays import Array


@dataclass(frozen=True, slots=True)
class BufferLayout:
    """The shapes both sides share.

    Weights ``[P]`` and, for each worker, slots ``[S, P]`` for its partials, with one more behind
    them for what it sums of others'.
    """

    num_parameters: int
    num_slots: int
    dtype: str

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights."""
        return self.num_parameters * np.dtype(self.dtype).itemsize

    @property
    def slots_bytes(self) -> int:
        """Bytes of one worker's slots, each starting on a cache line."""
        return (self.num_slots + 1) * self._slot_stride

    @property
    def _slot_stride(self) -> int:
        return max(64, math.ceil(self.weights_bytes / 64) * 64)

    def weights(self, buffer: Any) -> Array:
        """The weights in `buffer`; shape ``[P]``."""
        return np.frombuffer(buffer, self.dtype, self.num_parameters)

    def slots(self, buffer: Any) -> Array:
        """The slots in `buffer`; shape ``[S, P]``."""
        return self._rows(buffer)[: self.num_slots]

    def reduced_slice(self, buffer: Any) -> Array:
        """The slot behind them; shape ``[P]``."""
        row: Array = self._rows(buffer)[self.num_slots]
        return row

    def _rows(self, buffer: Any) -> Array:
        itemsize = np.dtype(self.dtype).itemsize
        return np.ndarray(
            (self.num_slots + 1, self.num_parameters),
            self.dtype,
            buffer,
            strides=(self._slot_stride, itemsize),
        )
