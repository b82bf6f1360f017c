"""Arithmetic gates over arrays of any shape, with numpy's broadcasting.

The gradient of what was repeated is summed.

No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


def stage_summed_to(site: OpContext, name: str, out: Array) -> tuple[Array, list[Operation]]:
    """Where to write a gradient so that it arrives in `out`, summed where that was repeated.

    Returns:
        The array to write (`out` itself where nothing was repeated), and what to run afterwards.
    """
    full = site.output.shape
    if out.shape == full:
        return out, []
    gradient = site.buffer(name, full)
    padded = (1,) * (len(full) - out.ndim) + out.shape
    repeated = tuple(axis for axis, size in enumerate(padded) if size != full[axis])
    into = out.reshape(padded)
    keep = partial(np.add.reduce, gradient, repeated or None, None, into, keepdims=True)
    return gradient, [keep if repeated else partial(np.copyto, into, gradient)]


class _Broadcasting(Gate):
    """What the gates of two inputs share: the output has the broadcast shape."""

    reads_output: ClassVar[bool] = False
    __slots__ = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ModelError(
                f"cannot {self.name} shapes {' and '.join(map(str, shapes))}; sizes must be "
                "equal or 1, counted from the "
                "last axis (reshape one of them)"
            ) from None

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        # The first axis holds the samples of the output only if it does so in every input that has
        # samples.
        rank = len(self.output_shape(*shapes))
        return all(
            len(shape) == rank
            for shape, has_samples in zip(shapes, per_sample, strict=True)
            if has_samples
        )


@dataclass(frozen=True, slots=True)
class Add(_Broadcasting):
    """``x + y``: hands its gradient to both."""

    name: ClassVar[str] = "add"
    reads_inputs: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.add, *site.inputs, site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        return [partial(np.copyto, into, grad_or_ones(grad, site)), *finish]


@dataclass(frozen=True, slots=True)
class Subtract(_Broadcasting):
    """``x - y``."""

    name: ClassVar[str] = "subtract"
    reads_inputs: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.subtract, *site.inputs, site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        d = grad_or_ones(grad, site)
        return [
            partial(np.copyto, into, d) if index == 0 else partial(np.negative, d, into),
            *finish,
        ]


@dataclass(frozen=True, slots=True)
class Multiply(_Broadcasting):
    """``x · y``: hands each the gradient times the other."""

    name: ClassVar[str] = "multiply"

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.multiply, *site.inputs, site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        return [
            partial(np.multiply, grad_or_ones(grad, site), site.inputs[1 - index], into),
            *finish,
        ]


@dataclass(frozen=True, slots=True)
class Divide(_Broadcasting):
    """``x / y``."""

    name: ClassVar[str] = "divide"
    reads_output: ClassVar[bool] = True

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.divide, *site.inputs, site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        operations: list[Operation] = [
            partial(np.divide, grad_or_ones(grad, site), site.inputs[1], into)
        ]
        if index == 1:
            operations += [
                partial(np.multiply, into, site.output, into),
                partial(np.negative, into, into),
            ]
        return [*operations, *finish]


class _Choice(_Broadcasting):
    """What `Maximum` and `Minimum` share: the gradient goes to the one that was taken."""

    ufunc: ClassVar[np.ufunc]
    first_wins: ClassVar[np.ufunc]
    second_wins: ClassVar[np.ufunc]
    __slots__ = ()

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(self.ufunc, *site.inputs, out=site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        wins = site.buffer(f"wins_{index}", site.output.shape, np.bool_)
        return [
            partial(self.second_wins if index else self.first_wins, *site.inputs, wins),
            partial(np.multiply, grad_or_ones(grad, site), wins, into),
            *finish,
        ]


@dataclass(frozen=True, slots=True)
class Maximum(_Choice):
    """The larger of two, element by element; of equal ones the gradient goes to the first."""

    name: ClassVar[str] = "maximum"
    ufunc: ClassVar[np.ufunc] = np.maximum
    first_wins: ClassVar[np.ufunc] = np.greater_equal
    second_wins: ClassVar[np.ufunc] = np.less


@dataclass(frozen=True, slots=True)
class Minimum(_Choice):
    """The smaller of two, element by element; of equal ones the gradient goes to the first."""

    name: ClassVar[str] = "minimum"
    ufunc: ClassVar[np.ufunc] = np.minimum
    first_wins: ClassVar[np.ufunc] = np.less_equal
    second_wins: ClassVar[np.ufunc] = np.greater


@dataclass(frozen=True, slots=True)
class Raise(_Broadcasting):
    """``x ** y``, where both may vary; by `y` it is ``x ** y · ln x``, 0 where x is not above 0.

    For an exponent that is one fixed number there is `Power`.
    """

    name: ClassVar[str] = "raise"
    reads_output: ClassVar[bool] = True

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.power, *site.inputs, site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        x, y = site.inputs
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        slope, d = site.buffer(f"slope_{index}", site.output.shape), grad_or_ones(grad, site)
        if index == 1:
            log, is_above = site.buffer("log", x.shape), site.buffer("is_above", x.shape, np.bool_)
            return [
                partial(np.greater, x, constant(0, x.dtype), is_above),
                partial(log.fill, 0),
                partial(np.log, x, log, where=is_above),
                partial(np.multiply, site.output, log, slope),
                partial(np.multiply, d, slope, into),
                *finish,
            ]
        rest, is_flat = site.buffer("rest", y.shape), site.buffer("is_flat", y.shape, np.bool_)
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
class Where(_Broadcasting):
    """``x`` where a condition holds, else ``y``; inputs are the condition (booleans), x and y."""

    name: ClassVar[str] = "where"
    reads_output: ClassVar[bool] = False

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return Gate.output_dtype(self, *dtypes[1:])

    def stage_forward(self, site: OpContext) -> list[Operation]:
        holds, x, y = site.inputs
        return [
            partial(np.copyto, site.output, y),
            partial(np.copyto, site.output, x, where=holds),
        ]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        holds, counts = site.inputs[0], site.buffer(f"counts_{index}", site.output.shape, np.bool_)
        return [
            partial(np.copyto, counts, holds)
            if index == 1
            else partial(np.logical_not, holds, counts),
            partial(into.fill, 0),
            partial(np.copyto, into, grad_or_ones(grad, site), where=counts),
            *finish,
        ]
