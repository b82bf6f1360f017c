"""Layers of images: convolution and max-pooling, samples of rows x columns x channels.

The channels of a pixel lie side by side, so that a flat row of a file becomes an image by a reshape
that moves nothing, and a convolution is one matrix product whose result is the next image as it
stands. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec
from distsgd.autodiff.ops.activations import ACTIVATIONS
from distsgd.autodiff.ops.convolution import Convolution as ConvolutionGate
from distsgd.autodiff.ops.convolution import MaxPool as MaxPoolGate
from distsgd.autodiff.ops.convolution import Padding
from distsgd.autodiff.variable import Variable, apply
from distsgd.base.settings import Setting, count
from distsgd.errors import ModelError
from distsgd.nn.layers import BIAS, ElementwiseName, Layer, activation_setting


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """``activation(patches @ weight + bias)`` at each place of a square kernel.

    Images of rows x columns x channels become such. The weight is ``[kernel, kernel, channels
    before, channels]``.

    Attributes:
        channels: Outputs at each place.
        kernel: Its rows and columns.
        stride: Pixels from one place to the next.
        padding: "valid": places inside the image only; "same": zeros around it.
        activation: Applied to the outputs; one that works number by number.
        bias: Whether b is added.
    """

    channels: Annotated[int, count("number of output channels")]
    kernel: Annotated[int, count("rows and columns of the kernel")]
    stride: Annotated[int, count("pixels from one place to the next")] = 1
    padding: Annotated[
        Padding, Setting("places inside the image only, or zeros around it", '"valid" or "same"')
    ] = "valid"
    activation: Annotated[ElementwiseName | None, activation_setting(ElementwiseName)] = None
    bias: Annotated[bool, BIAS] = True
    type: ClassVar[str] = "convolution"

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        shape = (self.kernel, self.kernel, input_shape[-1], self.channels)
        weight = ParameterSpec("weight", shape)
        return (weight, ParameterSpec("bias", (self.channels,))) if self.bias else (weight,)

    def output_shape(self, input_shape: Shape) -> Shape:
        _check_image(self.type, input_shape)
        gate = ConvolutionGate(self.stride, self.padding)
        kernel = (self.kernel, self.kernel, input_shape[-1], self.channels)
        return gate.output_shape((1, *input_shape), kernel)[1:]

    def numbers_per_sample(self, input_shape: Shape) -> int:
        """The patch of each place as well, and images with zeros around them."""
        places = math.prod(self.output_shape(input_shape)[:2])
        patches = places * self.kernel**2 * input_shape[-1]
        padded = 2 * math.prod(input_shape) if self.padding == "same" else 0
        # Not `super()`: a dataclass with slots is another class than the one it was written in.
        return Layer.numbers_per_sample(self, input_shape) + patches + padded

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        bias = (parameters["bias"],) if self.bias else ()
        gate = ConvolutionGate(self.stride, self.padding)
        z = apply(gate, x, parameters["weight"], *bias)
        return z if self.activation is None else apply(ACTIVATIONS[self.activation], z)


@dataclass(frozen=True, slots=True)
class MaxPool(Layer):
    """The largest number of each window of `size` x `size`; what fills no window is left out."""

    size: Annotated[int, count("rows and columns of a window")]
    type: ClassVar[str] = "max_pool"

    def output_shape(self, input_shape: Shape) -> Shape:
        _check_image(self.type, input_shape)
        return MaxPoolGate(self.size).output_shape((1, *input_shape))[1:]

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        del parameters
        return apply(MaxPoolGate(self.size), x)


LAYERS: tuple[type[Layer], ...] = (Convolution, MaxPool)


def _check_image(layer: str, input_shape: Shape) -> None:
    if len(input_shape) != 3:
        raise ModelError(
            f"a {layer} layer got samples of shape {input_shape}; must be rows x columns x "
            "channels (put a reshape layer before it, or set [data] input_shape)"
        )
