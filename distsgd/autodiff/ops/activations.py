"""Activations: gates that bend each number on its own, and the softmax of a row.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

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


class _Tail(NamedTuple):
    """How `_normal_tail` is computed in a dtype: ``(a + centre)·Q(a) / exp(-a²/2)`` as polynomial.

    Attributes:
        bound: From here on Q is 0 in the dtype.
        centre: Where the polynomial's variable ``(a - centre) / (a + centre)`` is 0.
        coefficients: Lowest power first.
    """

    bound: float
    centre: float
    coefficients: tuple[float, ...]


# Chebyshev fits in 40 digits; what they leave out is 2.6e-9 of the value, and 1.2e-17.
_TAILS = {
    np.dtype(np.float32): _Tail(
        14.5,
        4.0,
        (
            *(7.552851304887489e-01, -6.078966577636513e-01, 3.871373823009086e-01),
            *(-1.865213074612191e-01, 6.0397293905870064e-02, -7.545268164187146e-03),
            *(-3.4880755300982533e-03, 1.646295611864889e-03, 1.6935545827690643e-04),
            *(-2.3462176112985336e-04, -5.264564978400001e-05),
        ),
    ),
    np.dtype(np.float64): _Tail(
        39.0,
        5.0,
        (
            *(7.69193049750063e-01, -6.653825028900567e-01, 4.953056159699764e-01),
            *(-3.1353315667130455e-01, 1.650203661703847e-01, -6.911863870631016e-02),
            *(2.0795066799883178e-02, -2.9933767705085422e-03, -7.978693984660701e-04),
            *(5.448990647731298e-04, -5.937572800991586e-05, -4.97628142705858e-05),
            *(1.6681213742042063e-05, 3.9809021578680414e-06, -2.76926709599743e-06),
            *(-3.366153681012471e-07, 4.331410356862585e-07, 4.2274993740065346e-08),
            *(-6.594221662477223e-08, -9.31356099432606e-09, 7.66307180076004e-09),
            *(1.753048401408232e-09, -1.5877468827473365e-10),
        ),
    ),
}


def _bounded_size(x: Any) -> Any:
    return np.minimum(np.abs(x), _TAILS[x.dtype].bound)


def _bell(size: Any) -> Any:
    """``exp(-a²/2)``; of a by its sixteenths, whose squares are exact, and what is left."""
    coarse = np.rint(size * 16) * (1 / 16)
    return np.exp(coarse * coarse * -0.5) * np.exp((size - coarse) * (size + coarse) * -0.5)


def _normal_tail(x: Any) -> Any:
    """``Q(|x|) = erfc(|x| / √2) / 2``: the share of the normal distribution beyond ``|x|``.

    By one polynomial over all of it, as Shepherd and Laframboise, "Chebyshev approximation of
    (1 + 2x) exp(x²) erfc(x) in 0 <= x < ∞", Mathematics of Computation 36, 1981.
    """
    size, (_, centre, (*lower, total)) = _bounded_size(x), _TAILS[x.dtype]
    shifted = size + centre
    u = (size - centre) / shifted
    for coefficient in reversed(lower):
        total = u * total + coefficient
    return total / shifted * _bell(size)


def _gelu_gradient(d: Any, x: Any, kept: Any) -> Any:
    """``Φ(x) + x·φ(x)``, which is ``Q - |x|·φ`` below 0, and 1 less that above."""
    size = _bounded_size(x)
    sign = np.copysign(1.0, x)
    beyond = kept - _bell(size) * size * (1 / math.sqrt(2 * math.pi))
    return d * (np.maximum(sign, 0) - sign * beyond)


class Gelu(
    Elementwise,
    keep=_normal_tail,
    # x·Φ(x) without cancellation: Φ(x) is Q(|x|) below 0, and 1 less that above.
    value=lambda x, kept: np.maximum(x, np.zeros(x.shape, x.dtype)) - _bounded_size(x) * kept,
    gradient=_gelu_gradient,
):
    """``x·Φ(x)`` with the normal distribution Φ, exactly: no approximation by tanh.

    Within 4 ulp down to the smallest normal number, in float32 and float64, also far out below 0;
    so is its derivative, but near its zero at -0.75, where that is measured against 1.

    Source: Hendrycks and Gimpel, "Gaussian error linear units", 2016, arXiv:1606.08415.
    """


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

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x_NO, y_NO = context.inputs[0], context.output
        exp_ON, sum_N = (
            context.buffer("exp", x_NO.shape[::-1]),
            context.buffer("sum", x_NO.shape[:1]),
        )
        largest_N = context.buffer("largest", x_NO.shape[:1])
        shift, exponentials, total = stage_shifted_exponentials(x_NO, exp_ON, largest_N, sum_N)
        return [*shift, exponentials, total, partial(np.divide, exp_ON, sum_N, y_NO.T)]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        """``y·(d - Σ y·d)``, with all d less that of the largest y.

        That changes nothing but the rounding: where y is nearly 1, its own d less the mean of all
        would be a difference of nearly equal numbers.
        """
        del index
        y_NO, d_NO = context.output, grad_or_ones(grad, context)
        rows, num_outputs = len(out), out.shape[1]
        mean_N1, own_N1 = context.buffer("mean", (rows, 1)), context.buffer("own", (rows, 1))
        place_N = context.buffer("place", (rows,), np.int64)
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
    gate.name: gate for gate in (Relu(), Sigmoid(), Tanh(), Gelu(), Softmax())
}
"""What may bend the outputs of a layer, by the name that it has in a configuration."""
