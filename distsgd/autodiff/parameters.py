"""Parameters by name in one flat array, one behind the other, row-major.

No I/O here. Shape letter: P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from distsgd.autodiff.gate import Shape
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


class ParameterSpec(NamedTuple):
    """The name and shape of a parameter."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def total_size(parameters: Sequence[ParameterSpec]) -> int:
    """P, how many numbers all of them hold."""
    return sum(spec.size for spec in parameters)


def views(parameters: Sequence[ParameterSpec], flat: Array) -> dict[str, Array]:
    """The parameters by name, as views of `flat`, shape ``[P]``; nothing is copied."""
    ends = list(accumulate((spec.size for spec in parameters), initial=0))
    if flat.shape != (ends[-1],):
        raise ModelError(f"the flat parameters have shape {flat.shape}; must be ({ends[-1]},)")
    return {
        spec.name: flat[start : start + spec.size].reshape(spec.shape)
        for spec, start in zip(parameters, ends, strict=False)
    }
