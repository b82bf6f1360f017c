"""Activations: gates that bend each number on its own, and the softmax of a row.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, grad_or_ones
from distsgd.autodiff.ops.elementwise import Elementwise
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

# Below these exp(-x) would overflow; above them the sigmoid is still a normal number.
_LOWEST = {np.dtype(np.float32): -87.0, np.dtype(np.float64): -708.0}


class Relu(
    Elementwise,
    # Against a whole array of zeros numpy is three times as fast as against one zero; large ones
    # take no memory, since the system maps untouched zeros to one page.
    value=lambda x: np.maximum(x, np.zeros(x.shape, x.dtype)),
    gradient=lambda d, y: d * (y > 0),
):
    """``max(x, 0)``; its derivative at 0 is 0.

    Not-a-number passes through, so that divergence is seen.
    """


class Sigmoid(
    Elementwise,
    keep=lambda x: np.exp(-np.maximum(x, _LOWEST[x.dtype])),
    value=lambda kept: np.reciprocal(kept + 1),
    # The slope is y·(1 - y), and 1 - y is exp(-x)·y, which does not cancel where y is near 1.
    gradient=lambda d, y, kept: d * (kept * y * y),
):
    """``1 / (1 + exp(-x))``, without overflow.

    Relative accuracy is full down to the smallest normal number.
    """


def _tanh_gradient(d: Any, kept: Any) -> Any:
    """By ``4e / (1 + e)²`` with ``e = exp(-2|x|)``; 1 - y² would cancel where |y| is near 1."""
    e = np.exp(kept * -2)
    one_more = e + 1
    return d * (e / one_more / one_more * 4)


class Tanh(Elementwise, keep=np.abs, value=np.tanh, gradient=_tanh_gradient):
    """The hyperbolic tangent."""


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

    def stage_forward(self, site: OpContext) -> list[Operation]:
        x_NO, y_NO = site.inputs[0], site.output
        exp_ON, sum_N = site.buffer("exp", x_NO.shape[::-1]), site.buffer("sum", x_NO.shape[:1])
        largest_N = site.buffer("largest", x_NO.shape[:1])
        shift, exponentials, total = stage_shifted_exponentials(x_NO, exp_ON, largest_N, sum_N)
        return [*shift, exponentials, total, partial(np.divide, exp_ON, sum_N, y_NO.T)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        """``y·(d - Σ y·d)``, with all d less that of the largest y.

        That changes nothing but the rounding: where y is nearly 1, its own d less the mean of all
        would be a difference of nearly equal numbers.
        """
        del index
        y_NO, d_NO = site.output, grad_or_ones(grad, site)
        rows, num_outputs = len(out), out.shape[1]
        mean_N1, own_N1 = site.buffer("mean", (rows, 1)), site.buffer("own", (rows, 1))
        place_N = site.buffer("place", (rows,), np.int64)
        row_start_N = np.arange(rows, dtype=np.int64) * num_outputs
        return [
            partial(np.argmax, y_NO, 1, place_N),
            partial(np.add, place_N, row_start_N, place_N),
            partial(d_NO.reshape(-1).take, place_N, None, own_N1[:, 0], "clip"),
            partial(np.subtract, d_NO, own_N1, out),
            partial(np.vecdot, y_NO, out, mean_N1[:, 0]),
            partial(np.subtract, out, mean_N1, out),
            partial(np.multiply, out, y_NO, out),
        ]


def stage_shifted_exponentials(
    x_NO: Array, exp_ON: Array, largest_N: Array, sum_N: Array
) -> tuple[list[Operation], Operation, Operation]:
    """Operations that shift each row by its largest, that take exponentials, and their sum.

    The exponentials lie transposed: along the long axis numpy reduces and broadcasts several times
    faster.
    """
    shift: list[Operation] = [
        partial(np.copyto, exp_ON, x_NO.T),
        partial(np.maximum.reduce, exp_ON, 0, None, largest_N),
        partial(np.subtract, exp_ON, largest_N, exp_ON),
    ]
    return shift, partial(np.exp, exp_ON, exp_ON), partial(np.add.reduce, exp_ON, 0, None, sum_N)


ACTIVATIONS: Mapping[str, Gate] = {
    gate.name: gate for gate in (Relu(), Sigmoid(), Tanh(), Softmax())
}
"""What may bend the outputs of a layer, by the name that it has in a configuration."""
