"""Layers: compositions of gates with named parameters.

Shape letters: N samples, I inputs, O outputs. A layer never sees how many samples there are. No
I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from distsgd.autodiff import functions
from distsgd.autodiff.gate import Shape
from distsgd.autodiff.ops.activations import ACTIVATIONS
from distsgd.autodiff.ops.shapes import Reshape as ReshapeGate
from distsgd.autodiff.parameters import ParameterSpec
from distsgd.autodiff.tape import Variable, apply
from distsgd.errors import ModelError
from distsgd.nn.names import nearest


class Layer:
    """What a model is made of; subclasses are frozen dataclasses of their settings, and picklable.

    Attributes:
        type: Its name in a configuration.
        numbers_per_output: About how many numbers training holds for each of its output; the
            output and its gradient at least.
        starts: Values that parameters of one axis start at, by name; 0 for those not named.
    """

    type: ClassVar[str]
    numbers_per_output: ClassVar[int] = 2
    starts: ClassVar[Mapping[str, float]] = {}

    __slots__ = ()

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        """Its parameters for one sample of `input_shape`; none unless a layer says otherwise."""
        del input_shape
        return ()

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one sample of its output; raises `ModelError` where the input does not fit."""
        raise NotImplementedError

    def numbers_per_sample(self, input_shape: Shape) -> int:
        """About how many numbers training holds for one sample; an activation has its slopes."""
        per_output = self.numbers_per_output + (getattr(self, "activation", None) is not None)
        return per_output * math.prod(self.output_shape(input_shape))

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        """Its output for all samples."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as in a configuration."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type] # subclasses are dataclasses
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
        return {"type": self.type} | {name: v for name, v in plain.items() if v is not None}


def check_count(name: str, value: int) -> None:
    """Raises `ModelError` unless `value`, the setting `name` of a layer, is a count."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(
            f"{name} is {value!r}; must be a whole number of at least 1 (set {name} of the layer)"
        )


def check_activation(name: str | None) -> None:
    """Raises `ModelError` unless `name` is an activation or None."""
    if name is not None and (not isinstance(name, str) or name not in ACTIVATIONS):
        raise ModelError(
            f"activation is {name!r}; must be one of {', '.join(ACTIVATIONS)}, or left out"
            f"{nearest(str(name), ACTIVATIONS)}"
        )


@dataclass(frozen=True, slots=True)
class Dense(Layer):
    """``activation(x @ weight + bias)``, with the weight as inputs x outputs."""

    units: int
    activation: str | None = None
    bias: bool = True
    type: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        check_count("units", self.units)
        check_activation(self.activation)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        weight = ParameterSpec("weight", (*input_shape, self.units))
        return (weight, ParameterSpec("bias", (self.units,))) if self.bias else (weight,)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ModelError(
                f"a dense layer got samples of shape {input_shape}; must be one axis (put a "
                "flatten layer before it)"
            )
        return (self.units,)

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        weight = parameters["weight"]
        z_NO = functions.affine(x, weight, parameters["bias"]) if self.bias else x @ weight
        return z_NO if self.activation is None else apply(ACTIVATIONS[self.activation], z_NO)


@dataclass(frozen=True, slots=True)
class Activation(Layer):
    """An activation as a layer of its own."""

    name: str
    type: ClassVar[str] = "activation"
    numbers_per_output: ClassVar[int] = 1  # And its slopes; the rest lies where its input lay.

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ModelError(
                f"activation is {self.name!r}; must be one of "
                f"{', '.join(ACTIVATIONS)}{nearest(self.name, ACTIVATIONS)}"
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        if self.name == "softmax" and len(input_shape) != 1:
            raise ModelError(
                f"softmax got samples of shape {input_shape}; must be one axis (put a flatten "
                "layer before it)"
            )
        return input_shape

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        del parameters
        return apply(ACTIVATIONS[self.name], x)

    @property
    def activation(self) -> str:
        return self.name

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.name}


def ReLU() -> Activation:  # noqa: N802 -- reads as the layer it makes.
    """``max(x, 0)`` as a layer of its own."""
    return Activation("relu")


def Sigmoid() -> Activation:  # noqa: N802 -- reads as the layer it makes.
    """The logistic function as a layer of its own."""
    return Activation("sigmoid")


def Tanh() -> Activation:  # noqa: N802 -- reads as the layer it makes.
    """The hyperbolic tangent as a layer of its own."""
    return Activation("tanh")


def Softmax() -> Activation:  # noqa: N802 -- reads as the layer it makes.
    """Softmax over the outputs as a layer of its own."""
    return Activation("softmax")


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """Each sample as one row of numbers; moves nothing."""

    type: ClassVar[str] = "flatten"

    def numbers_per_sample(self, input_shape: Shape) -> int:
        del input_shape
        return 0  # The same memory in another shape.

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        del parameters
        return apply(ReshapeGate((-1, math.prod(x.shape[1:]))), x)


@dataclass(frozen=True, slots=True)
class Reshape(Layer):
    """Each sample in another shape, such as the flat rows of a file as images; moves nothing."""

    shape: tuple[int, ...]
    type: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.shape:
            raise ModelError(
                "the shape is empty; must hold a size or more (set shape of the layer)"
            )
        for size in self.shape:
            check_count("a size of shape", size)

    def numbers_per_sample(self, input_shape: Shape) -> int:
        del input_shape
        return 0  # The same memory in another shape.

    def output_shape(self, input_shape: Shape) -> Shape:
        if math.prod(input_shape) != math.prod(self.shape):
            raise ModelError(
                f"cannot reshape samples of shape {input_shape} to {self.shape}; both must hold "
                f"{math.prod(input_shape)} numbers"
            )
        return self.shape

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        del parameters
        return apply(ReshapeGate((-1, *self.shape)), x)
