"""Weights: what they start at, by keyed chance.

Start weights are a pure function of initialiser, shape, seed and index. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distsgd.autodiff.gate import Shape
from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.base.settings import nearest
from distsgd.errors import ModelError


def glorot_limit(fan_in: int, fan_out: int) -> float:
    """``√(6 / (fan_in + fan_out))``: Glorot and Bengio, "Understanding the difficulty of training
    deep feedforward neural networks", AISTATS 2010.
    """  # noqa: D205 -- the source is longer than a line.
    return math.sqrt(6.0 / (fan_in + fan_out))


def he_limit(fan_in: int, fan_out: int) -> float:
    """``√(6 / fan_in)``, made for ReLU.

    He et al., "Delving deep into rectifiers", 2015, arXiv:1502.01852.
    """
    del fan_out
    return math.sqrt(6.0 / fan_in)


def zero_limit(fan_in: int, fan_out: int) -> float:
    """0: every weight starts at 0, as tutorials on linear models have it.

    The units of a hidden layer then stay equal to each other for ever.
    """
    del fan_in, fan_out
    return 0.0


Initialiser = Literal["glorot", "he", "zeros"]
INITIALISERS: Mapping[str, Callable[[int, int], float]] = {
    "glorot": glorot_limit,
    "he": he_limit,
    "zeros": zero_limit,
}


def start_values(init: str, shape: Shape, *, seed: int, index: int) -> NDArray[np.float64]:
    """Uniform numbers from minus to plus the initialiser's limit; a bias starts at 0.

    Args:
        init: "glorot", "he" or "zeros".
        shape: The parameter's; the last axis is the outputs.
        seed: The run's.
        index: The parameter's number in its model.
    """
    if not isinstance(init, str) or init not in INITIALISERS:
        raise ModelError(
            f"init is {init!r}; must be one of "
            f"{', '.join(INITIALISERS)}{nearest(str(init), INITIALISERS)}"
        )
    if len(shape) < 2:
        return np.zeros(shape)
    limit = INITIALISERS[init](math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1])
    if limit == 0.0:
        return np.zeros(shape)  # A number times 0 could be minus 0, which has other bits.
    chance = uniform(seed, Purpose.INITIAL_WEIGHTS, index, count=math.prod(shape))
    return ((2.0 * chance - 1.0) * limit).reshape(shape)


def check_flat(flat: object, kinds: str = "f") -> None:
    """Raises `ModelError` unless `flat` is an array whose dtype is of one of these `kinds`."""
    if not isinstance(flat, np.ndarray) or flat.dtype.kind not in kinds:
        found = f"of dtype {flat.dtype}" if isinstance(flat, np.ndarray) else repr(flat)
        raise ModelError(f"the flat parameters are {found}; must be an array [P] of floats")


def in_short(arrays: Mapping[str, Array]) -> str:
    """How many arrays and numbers these are.

    >>> in_short({"weight": np.zeros((64, 10)), "bias": np.zeros(10)})
    '2 arrays, 650 numbers'
    """
    return f"{len(arrays)} arrays, {sum(np.size(array) for array in arrays.values()):,} numbers"
