"""Activations: gates that bend each number on its own, and the softmax of a row.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import Array, Gate, Operation, Shape, Site, constant, grad_or_ones
from distsgd.errors import ModelError


class _Activation(Gate):
    """What the element-wise activations share: their gradient follows from the output, in place."""

    reads_inputs: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    __slots__ = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes, per_sample
        return True


@dataclass(frozen=True, slots=True)
class Relu(_Activation):
    """``max(x, 0)``; its derivative at 0 is 0.

    Not-a-number passes through, so that divergence is seen.
    """

    name: ClassVar[str] = "relu"

    def stage_forward(self, site: Site) -> list[Operation]:
        # Against a whole array of zeros numpy is three times as fast as against one zero; large
        # ones take no memory, since the system maps untouched zeros to one page.
        zeros = np.zeros(site.output.shape, site.output.dtype)
        return [partial(np.maximum, site.inputs[0], zeros, out=site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        is_on = site.buffer("is_on", out.shape, np.bool_)
        d = grad_or_ones(grad, site)
        return [
            partial(np.greater, site.output, constant(0, site.output.dtype), is_on),
            partial(np.multiply, d, is_on, out),
        ]


@dataclass(frozen=True, slots=True)
class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``, without overflow.

    Relative accuracy is full down to the smallest normal number.
    """

    name: ClassVar[str] = "sigmoid"

    def stage_forward(self, site: Site) -> list[Operation]:
        return stage_sigmoid(site.inputs[0], site.output)

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        # d·(y - y²), by one buffer and three passes.
        y, slope = site.output, site.buffer("slope", out.shape)
        operations: list[Operation] = [
            partial(np.multiply, y, y, slope),
            partial(np.subtract, y, slope, slope),
        ]
        d = grad_or_ones(grad, site)
        return [*operations, partial(np.multiply, d, slope, out)]


@dataclass(frozen=True, slots=True)
class Tanh(_Activation):
    """The hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.tanh, site.inputs[0], site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        y, slope = site.output, site.buffer("slope", out.shape)
        d = grad_or_ones(grad, site)
        return [
            partial(np.multiply, y, y, slope),
            partial(np.subtract, constant(1, slope.dtype), slope, slope),
            partial(np.multiply, d, slope, out),
        ]


@dataclass(frozen=True, slots=True)
class Softmax(Gate):
    """``exp(x_n) / Σ exp(x_n)`` of each row.

    Shifted by the row's largest, so that nothing overflows.
    """

    name: ClassVar[str] = "softmax"
    reads_inputs: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 2:
            raise ModelError(
                f"softmax got shape {shapes[0]}; must be [samples, outputs] (flatten first)"
            )
        return shapes[0]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes, per_sample
        return True

    def stage_forward(self, site: Site) -> list[Operation]:
        x_NO, y_NO = site.inputs[0], site.output
        exp_ON, sum_N = site.buffer("exp", x_NO.shape[::-1]), site.buffer("sum", x_NO.shape[:1])
        largest_N = site.buffer("largest", x_NO.shape[:1])
        return [
            *stage_shifted_exponentials(x_NO, exp_ON, largest_N, sum_N),
            partial(np.divide, exp_ON, sum_N, y_NO.T),
        ]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        """``y·(d - Σ y·d)``."""
        del index
        y_NO, d_NO = site.output, grad_or_ones(grad, site)
        mean_N1 = site.buffer("mean", (len(out), 1))
        return [
            partial(np.vecdot, y_NO, d_NO, mean_N1[:, 0]),
            partial(np.subtract, d_NO, mean_N1, out),
            partial(np.multiply, out, y_NO, out),
        ]


def stage_sigmoid(x: Array, out: Array) -> list[Operation]:
    """Operations for the sigmoid of `x`; `out` may be `x`."""
    one = constant(1, out.dtype)
    # exp(-x) would overflow below; above the bound the result is still a normal number.
    lowest = constant(-87 if out.dtype == np.float32 else -708, out.dtype)
    return [
        partial(np.maximum, x, lowest, out=out),
        partial(np.negative, out, out),
        partial(np.exp, out, out),
        partial(np.add, out, one, out),
        partial(np.reciprocal, out, out),
    ]


def stage_shifted_exponentials(
    x_NO: Array, exp_ON: Array, largest_N: Array, sum_N: Array
) -> list[Operation]:
    """Operations for each row's largest, its shifted exponentials, and their sum.

    The exponentials lie transposed: along the long axis numpy reduces and broadcasts several times
    faster.
    """
    return [
        partial(np.copyto, exp_ON, x_NO.T),
        partial(np.maximum.reduce, exp_ON, 0, None, largest_N),
        partial(np.subtract, exp_ON, largest_N, exp_ON),
        partial(np.exp, exp_ON, exp_ON),
        partial(np.add.reduce, exp_ON, 0, None, sum_N),
    ]
