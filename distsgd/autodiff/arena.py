"""Memory that a program owns, handed out in order.

The same request of every binding gets the same memory. No I/O here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distsgd.autodiff.gate import Shape
from distsgd.base.arrays import Array

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Arena:
    """Buffers of one program; rewound before each binding, so that bindings share them."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []
        self._next = 0

    def rewind(self) -> None:
        """Starts again with the first buffer."""
        self._next = 0

    def allocate(self, shape: Shape, dtype: DTypeLike) -> Array:
        """The next buffer, its content undefined; grown where an earlier binding needed less."""
        dtype = np.dtype(dtype)
        size_bytes = math.prod(shape) * dtype.itemsize
        if self._next == len(self._buffers):
            self._buffers.append(_aligned(size_bytes))
        elif self._buffers[self._next].size < size_bytes:
            self._buffers[self._next] = _aligned(size_bytes)
        buffer = self._buffers[self._next]
        self._next += 1
        return buffer[:size_bytes].view(dtype).reshape(shape)


def _aligned(size_bytes: int) -> NDArray[np.uint8]:
    raw = np.empty(size_bytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size_bytes]
