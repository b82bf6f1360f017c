"""Arithmetic gates over arrays of any shape, with numpy's broadcasting.

The gradient of what was repeated is summed.

No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, constant, grad_or_ones
from distsgd.autodiff.ops.elementwise import Elementwise, stage_summed_to
from distsgd.base.arrays import Array


class Add(Elementwise, value=np.add, gradient=(lambda d: d, lambda d: d)):
    """``a + b``: hands its gradient to both."""


class Subtract(Elementwise, value=np.subtract, gradient=(lambda d: d, lambda d: -d)):
    """``a - b``."""


class Multiply(Elementwise, value=np.multiply, gradient=(lambda d, b: d * b, lambda d, a: d * a)):
    """``a · b``: hands each the gradient times the other."""


class Divide(
    Elementwise, value=np.divide, gradient=(lambda d, b: d / b, lambda d, b, y: -(d / b * y))
):
    """``a / b``."""


class Maximum(
    Elementwise,
    value=np.maximum,
    gradient=(lambda d, a, b: d * (a >= b), lambda d, a, b: d * (a < b)),
):
    """The larger of two, element by element; of equal ones the gradient goes to the first."""


class Minimum(
    Elementwise,
    value=np.minimum,
    gradient=(lambda d, a, b: d * (a <= b), lambda d, a, b: d * (a > b)),
):
    """The smaller of two, element by element; of equal ones the gradient goes to the first."""


@dataclass(frozen=True, slots=True)
class Raise(Elementwise):
    """``x ** y``, where both may vary; by `y` it is ``x ** y · ln x``, 0 where x is not above 0.

    For an exponent that is one fixed number there is `Power`.
    """

    name: ClassVar[str] = "raise"
    reads_output: ClassVar[bool] = True

    def stage_forward(self, context: OpContext) -> list[Operation]:
        return [partial(np.power, *context.inputs, context.output)]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        x, y = context.inputs
        into, finish = stage_summed_to(context, f"grad_{index}", out)
        slope, d = (
            context.buffer(f"slope_{index}", context.output.shape),
            grad_or_ones(grad, context),
        )
        if index == 1:
            log, is_above = (
                context.buffer("log", x.shape),
                context.buffer("is_above", x.shape, np.bool_),
            )
            return [
                partial(np.greater, x, constant(0, x.dtype), is_above),
                partial(log.fill, 0),
                partial(np.log, x, log, where=is_above),
                partial(np.multiply, context.output, log, slope),
                partial(np.multiply, d, slope, into),
                *finish,
            ]
        rest, is_flat = (
            context.buffer("rest", y.shape),
            context.buffer("is_flat", y.shape, np.bool_),
        )
        one = constant(1, y.dtype)
        return [
            partial(np.subtract, y, one, rest),
            # Of an exponent 0 the slope is 0; 0 · x ** -1 would be no number at 0.
            partial(np.equal, y, constant(0, y.dtype), is_flat),
            partial(np.copyto, rest, one, where=is_flat),
            partial(np.power, x, rest, slope),
            partial(np.multiply, slope, y, slope),
            partial(np.multiply, d, slope, into),
            *finish,
        ]


@dataclass(frozen=True, slots=True)
class Where(Elementwise):
    """``x`` where a condition holds, else ``y``; inputs are the condition (booleans), x and y."""

    name: ClassVar[str] = "where"
    reads_output: ClassVar[bool] = False

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return Gate.output_dtype(self, *dtypes[1:])

    def stage_forward(self, context: OpContext) -> list[Operation]:
        holds, x, y = context.inputs
        return [
            partial(np.copyto, context.output, y),
            partial(np.copyto, context.output, x, where=holds),
        ]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(context, f"grad_{index}", out)
        holds, counts = (
            context.inputs[0],
            context.buffer(f"counts_{index}", context.output.shape, np.bool_),
        )
        return [
            partial(np.copyto, counts, holds)
            if index == 1
            else partial(np.logical_not, holds, counts),
            partial(into.fill, 0),
            partial(np.copyto, into, grad_or_ones(grad, context), where=counts),
            *finish,
        ]
