"""Dropout: numbers left out by chance that is a function of a row's key, never of its place.

Shape letters: N samples, U units of a sample. No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.base.random_keys import GOLDEN, stage_mixed
from distsgd.errors import ModelError

_STEPS = 2**32  # A unit is kept or not by 32 bits.


@dataclass(frozen=True, slots=True)
class Dropout(Gate):
    """Each number 0 with probability `rate`, the others divided by ``1 - rate``.

    Inputs are any ``[N, ...]`` and keys ``[N]``, uint64
    (`distsgd.base.random_keys.row_keys_inplace`). Unit u of a row stands or falls by the 32-bit
    half u of the SplitMix64 stream that starts at the row's key, moved on by 2**32 for each earlier
    layer; so a mask depends on key, layer and unit alone, in whatever block or worker the row is.
    `rate` is rounded to a multiple of 2**-32.

    Sources: Srivastava et al., "Dropout", JMLR 2014; Steele, Lea, Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014.
    """

    rate: float
    layer: int = 0
    name: ClassVar[str] = "dropout"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool | str) or not 0.0 <= self.rate < 1.0:
            raise ModelError(f"rate of dropout is {self.rate!r}; must be at least 0 and below 1")

    def output_shape(self, *shapes: Shape) -> Shape:
        x, keys = shapes
        if keys != x[:1]:
            raise ModelError(
                f"dropout got shape {x} and keys of shape {keys}; must have a key for each sample"
            )
        return x

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return dtypes[0]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return all(per_sample)

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x, key_N = context.inputs
        num_units = math.prod(x.shape[1:])
        pairs = -(-num_units // 2)
        bits, spare = (
            context.buffer(name, (len(x), pairs), np.uint64) for name in ("bits", "spare")
        )
        first = (self.layer << 32) + 1
        jumps = np.arange(first, first + pairs, dtype=np.uint64) * np.uint64(GOLDEN)
        halves = bits.view(np.uint32)[:, :num_units]
        dropped = min(round(self.rate * _STEPS), _STEPS - 1)
        is_kept = context.buffer("is_kept", (len(x), num_units), np.bool_)
        factor = context.buffer("factor", x.shape)
        scale = constant(_STEPS / (_STEPS - dropped), x.dtype)
        return [
            partial(np.add, key_N[:, None], jumps, bits),
            *stage_mixed(bits, spare),
            partial(np.greater_equal, halves, constant(dropped, np.uint32), is_kept),
            partial(np.multiply, is_kept.reshape(x.shape), scale, factor),
            partial(np.multiply, x, factor, context.output),
        ]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        if index != 0:
            raise ModelError("dropout has no gradient by its keys; watch what goes in instead")
        factor = context.buffer("factor", out.shape)
        return [partial(np.multiply, grad_or_ones(grad, context), factor, out)]
