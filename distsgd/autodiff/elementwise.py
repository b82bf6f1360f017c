"""Gates of one input that work number by number. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array


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

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.negative, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.negative, grad_or_ones(grad, site), out)]


@dataclass(frozen=True, slots=True)
class Exp(_Elementwise):
    """``exp(x)``."""

    name: ClassVar[str] = "exp"
    reads_inputs: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.exp, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.multiply, grad_or_ones(grad, site), site.output, out)]


@dataclass(frozen=True, slots=True)
class Log(_Elementwise):
    """The natural logarithm."""

    name: ClassVar[str] = "log"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.log, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.divide, grad_or_ones(grad, site), site.inputs[0], out)]


@dataclass(frozen=True, slots=True)
class Reciprocal(_Elementwise):
    """``1 / x``."""

    name: ClassVar[str] = "reciprocal"
    reads_inputs: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.reciprocal, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        slope = site.buffer("slope", out.shape)
        return [
            partial(np.multiply, site.output, site.output, slope),
            partial(np.negative, slope, slope),
            partial(np.multiply, grad_or_ones(grad, site), slope, out),
        ]


@dataclass(frozen=True, slots=True)
class Power(_Elementwise):
    """``x ** exponent`` for a fixed number."""

    exponent: float
    name: ClassVar[str] = "power"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        if self.exponent == 2.0:
            return [partial(np.square, site.inputs[0], site.output)]
        return [
            partial(
                np.power, site.inputs[0], constant(self.exponent, site.output.dtype), site.output
            )
        ]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        if self.exponent == 0.0:
            return [partial(out.fill, 0)]  # 0 · x**-1 would be no number at 0
        slope = site.buffer("slope", out.shape)
        return [
            partial(np.power, site.inputs[0], constant(self.exponent - 1.0, out.dtype), slope),
            partial(np.multiply, slope, constant(self.exponent, out.dtype), slope),
            partial(np.multiply, grad_or_ones(grad, site), slope, out),
        ]


@dataclass(frozen=True, slots=True)
class Absolute(_Elementwise):
    """``|x|``; its derivative at 0 is 0."""

    name: ClassVar[str] = "absolute"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.abs, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        sign = site.buffer("sign", out.shape)
        return [
            partial(np.sign, site.inputs[0], sign),
            partial(np.multiply, grad_or_ones(grad, site), sign, out),
        ]


@dataclass(frozen=True, slots=True)
class Sin(_Elementwise):
    """The sine, of radians."""

    name: ClassVar[str] = "sin"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.sin, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        slope = site.buffer("slope", out.shape)
        return [
            partial(np.cos, site.inputs[0], slope),
            partial(np.multiply, grad_or_ones(grad, site), slope, out),
        ]


@dataclass(frozen=True, slots=True)
class Cos(_Elementwise):
    """The cosine, of radians."""

    name: ClassVar[str] = "cos"
    reads_output: ClassVar[bool] = False

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [partial(np.cos, site.inputs[0], site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        slope = site.buffer("slope", out.shape)
        return [
            partial(np.sin, site.inputs[0], slope),
            partial(np.negative, slope, slope),
            partial(np.multiply, grad_or_ones(grad, site), slope, out),
        ]
