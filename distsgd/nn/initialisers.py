"""Start weights by keyed chance: a pure function of initialiser, shape, seed and index.

No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from distsgd.autodiff.gate import Shape
from distsgd.base.random_keys import Purpose, uniform
from distsgd.errors import ModelError
from distsgd.nn.names import nearest


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
