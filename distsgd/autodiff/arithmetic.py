"""Arithmetic gates over arrays of any shape, with numpy's broadcasting.

The gradient of what was repeated is summed.

No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import Array, Gate, Operation, Shape, Site, constant, ones_like
from distsgd.errors import ModelError


def stage_summed_to(site: Site, name: str, out: Array) -> tuple[Array, list[Operation]]:
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

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.add, *site.inputs, site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        return [partial(np.copyto, into, _or_ones(grad, site)), *finish]


@dataclass(frozen=True, slots=True)
class Subtract(_Broadcasting):
    """``x - y``."""

    name: ClassVar[str] = "subtract"
    reads_inputs: ClassVar[bool] = False

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.subtract, *site.inputs, site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        d = _or_ones(grad, site)
        return [
            partial(np.copyto, into, d) if index == 0 else partial(np.negative, d, into),
            *finish,
        ]


@dataclass(frozen=True, slots=True)
class Multiply(_Broadcasting):
    """``x · y``: hands each the gradient times the other."""

    name: ClassVar[str] = "multiply"

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.multiply, *site.inputs, site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        return [partial(np.multiply, _or_ones(grad, site), site.inputs[1 - index], into), *finish]


@dataclass(frozen=True, slots=True)
class Divide(_Broadcasting):
    """``x / y``."""

    name: ClassVar[str] = "divide"
    reads_output: ClassVar[bool] = True

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.divide, *site.inputs, site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        operations: list[Operation] = [
            partial(np.divide, _or_ones(grad, site), site.inputs[1], into)
        ]
        if index == 1:
            operations += [
                partial(np.multiply, into, site.output, into),
                partial(np.negative, into, into),
            ]
        return [*operations, *finish]


@dataclass(frozen=True, slots=True)
class Maximum(_Broadcasting):
    """The larger of two, element by element.

    The gradient goes to the larger one, where they are equal to the first.
    """

    name: ClassVar[str] = "maximum"

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.maximum, *site.inputs, out=site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        into, finish = stage_summed_to(site, f"grad_{index}", out)
        wins = site.buffer(f"wins_{index}", site.output.shape, np.bool_)
        compare = np.greater_equal if index == 0 else np.less
        return [
            partial(compare, *site.inputs, wins),
            partial(np.multiply, _or_ones(grad, site), wins, into),
            *finish,
        ]


class _Elementwise(Gate):
    """What the gates of one input share: the output has its shape, and samples stay apart."""

    __slots__ = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes, per_sample
        return True


@dataclass(frozen=True, slots=True)
class Negative(_Elementwise):
    """``-x``."""

    name: ClassVar[str] = "negative"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.negative, site.inputs[0], site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.negative, _or_ones(grad, site), out)]


@dataclass(frozen=True, slots=True)
class Exp(_Elementwise):
    """``exp(x)``."""

    name: ClassVar[str] = "exp"
    reads_inputs: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.exp, site.inputs[0], site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.multiply, _or_ones(grad, site), site.output, out)]


@dataclass(frozen=True, slots=True)
class Log(_Elementwise):
    """The natural logarithm."""

    name: ClassVar[str] = "log"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.log, site.inputs[0], site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.divide, _or_ones(grad, site), site.inputs[0], out)]


@dataclass(frozen=True, slots=True)
class Reciprocal(_Elementwise):
    """``1 / x``."""

    name: ClassVar[str] = "reciprocal"
    reads_inputs: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.reciprocal, site.inputs[0], site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        slope = site.buffer("slope", out.shape)
        return [
            partial(np.multiply, site.output, site.output, slope),
            partial(np.negative, slope, slope),
            partial(np.multiply, _or_ones(grad, site), slope, out),
        ]


@dataclass(frozen=True, slots=True)
class Power(_Elementwise):
    """``x ** exponent`` for a fixed number."""

    exponent: float
    name: ClassVar[str] = "power"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: Site) -> list[Operation]:
        if self.exponent == 2.0:
            return [partial(np.square, site.inputs[0], site.output)]
        return [
            partial(
                np.power, site.inputs[0], constant(self.exponent, site.output.dtype), site.output
            )
        ]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        slope = site.buffer("slope", out.shape)
        return [
            partial(np.power, site.inputs[0], constant(self.exponent - 1.0, out.dtype), slope),
            partial(np.multiply, slope, constant(self.exponent, out.dtype), slope),
            partial(np.multiply, _or_ones(grad, site), slope, out),
        ]


@dataclass(frozen=True, slots=True)
class Absolute(_Elementwise):
    """``|x|``; its derivative at 0 is 0."""

    name: ClassVar[str] = "absolute"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.abs, site.inputs[0], site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        sign = site.buffer("sign", out.shape)
        return [
            partial(np.sign, site.inputs[0], sign),
            partial(np.multiply, _or_ones(grad, site), sign, out),
        ]


@dataclass(frozen=True, slots=True)
class Sum(Gate):
    """The sum along `axes`, or of everything where `axes` is None."""

    axes: tuple[int, ...] | None = None
    name: ClassVar[str] = "sum"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        summed = self._summed(len(shapes[0]))
        return tuple(size for axis, size in enumerate(shapes[0]) if axis not in summed)

    def _summed(self, rank: int) -> frozenset[int]:
        axes = range(rank) if self.axes is None else self.axes
        if any(not -rank <= axis < rank for axis in axes):
            raise ModelError(
                f"sum along axes {self.axes}; must be from {-rank} to {rank - 1} for an array of "
                f"rank {rank}"
            )
        return frozenset(axis % rank for axis in axes)

    def stage_forward(self, site: Site) -> list[Operation]:
        axes = tuple(sorted(self._summed(site.inputs[0].ndim)))
        if not axes:
            return [partial(np.copyto, site.output, site.inputs[0])]
        return [partial(np.add.reduce, site.inputs[0], axes, None, site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        summed = self._summed(out.ndim)
        kept = tuple(1 if axis in summed else size for axis, size in enumerate(out.shape))
        return [partial(np.copyto, out, _or_ones(grad, site).reshape(kept))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return 0 not in self._summed(len(shapes[0]))


@dataclass(frozen=True, slots=True)
class Reshape(Gate):
    """The same numbers in another shape; one size may be -1.

    Moves nothing: the output is a view.
    """

    shape: Shape
    name: ClassVar[str] = "reshape"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        size, known = math.prod(shapes[0]), math.prod(n for n in self.shape if n != -1)
        if self.shape.count(-1) > 1 or (
            size % known if -1 in self.shape and known else size != known
        ):
            raise ModelError(
                f"cannot reshape {shapes[0]} to {self.shape}; both must hold {size} numbers"
            )
        return tuple(size // known if n == -1 else n for n in self.shape)

    def output_view(self, site_input: Array) -> Array | None:
        return site_input.reshape(self.output_shape(site_input.shape))

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.copyto, site.output, site.inputs[0].reshape(site.output.shape))]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.copyto, out, _or_ones(grad, site).reshape(out.shape))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return self.output_shape(*shapes)[:1] == shapes[0][:1]


def _or_ones(grad: Array | None, site: Site) -> Array:
    return ones_like(site.output) if grad is None else grad
