"""The same bits wherever arrays lie in memory: what PyTorch's MKL does only when it is told to.

Without ``MKL_CBWR`` a product has other bits where a matrix begins at another multiple of 4 bytes
of a cache line (seen with MKL 2024.2: 31 x 24 by 24 x 10), and weights lie differently in shared
memory than in that of one process. The variable is read once, at the first product of a process.
Source: Intel oneMKL, "Obtaining Numerically Reproducible Results" (conditional numerical
reproducibility). It costs no time (measured).
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import torch

from distsgd.errors import NumericsError

VARIABLE, VALUE = "MKL_CBWR", "AUTO"
_LINE = 64  # Bytes of a cache line.
_SIZES = ((31, 24, 10), (1, 64, 24), (1, 24, 10), (7, 33, 17))  # Rows, inputs, outputs.


@cache
def require_steady() -> None:
    """Have products of this process not depend on where arrays lie; once in a process.

    Raises:
        NumericsError: PyTorch has multiplied here before, in the other way.
    """
    was = os.environ.get(VARIABLE)
    os.environ.setdefault(VARIABLE, VALUE)
    try:
        depends = any(len(_bits(*sizes)) > 1 for sizes in _SIZES)
    finally:
        if was is None:
            del os.environ[VARIABLE]
    if depends:
        raise NumericsError(
            f"{VARIABLE} is {'not set' if was is None else repr(was)} and PyTorch was used in this "
            "process before, so that its products have other bits where arrays lie otherwise in "
            f'memory; set {VARIABLE}="{VALUE}" before Python starts'
        )


def _bits(rows: int, inputs: int, outputs: int) -> set[bytes]:
    """The bits of one product, with its matrices at several places of a cache line."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, inputs), np.float32)
    weight = random.standard_normal((outputs, inputs), np.float32)
    bias = random.standard_normal(outputs, np.float32)
    return {
        torch.nn.functional.linear(_at(x, at), _at(weight, place), _at(bias, place))
        .numpy()
        .tobytes()
        for at in range(0, _LINE, 16)
        for place in range(0, _LINE, 4)
    }


def _at(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], offset: int) -> torch.Tensor:
    """The same numbers, `offset` bytes behind the beginning of a cache line."""
    room = np.empty(array.nbytes + 2 * _LINE, np.uint8)
    start = -room.ctypes.data % _LINE + offset
    placed = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return torch.from_numpy(placed)
