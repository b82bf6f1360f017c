"""Layers: compositions of gates with named parameters.

Shape letters: N samples, I inputs, O outputs. A layer never sees how many samples there are. No
I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from distsgd.autodiff import functions
from distsgd.autodiff.gate import Shape
from distsgd.autodiff.parameters import ParameterSpec
from distsgd.autodiff.shapes import Reshape
from distsgd.autodiff.tape import Variable, apply
from distsgd.errors import ModelError
from distsgd.nn.names import nearest

ACTIVATIONS: Mapping[str, Callable[[Variable], Variable]] = {
    "relu": functions.relu,
    "sigmoid": functions.sigmoid,
    "tanh": functions.tanh,
    "softmax": functions.softmax,
}


class Layer(Protocol):
    """What a model is made of; frozen and picklable."""

    type: ClassVar[str]

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        """Its parameters for one sample of `input_shape`; those of one axis (biases) start at 0."""
        ...

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one sample of its output; raises `ModelError` where the input does not fit."""
        ...

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        """Its output for all samples."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as in a configuration."""
        ...


@dataclass(frozen=True, slots=True)
class Dense:
    """``activation(x @ weight + bias)``, with the weight as inputs x outputs."""

    units: int
    activation: str | None = None
    bias: bool = True
    type: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        if isinstance(self.units, bool) or not isinstance(self.units, int) or self.units < 1:
            raise ModelError(
                f"units is {self.units!r}; must be a whole number of at least 1 (set units of "
                "the layer)"
            )
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ModelError(
                f"activation is {self.activation!r}; must be one of {', '.join(ACTIVATIONS)}, or "
                "left out"
                f"{nearest(self.activation, ACTIVATIONS)}"
            )

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
        return z_NO if self.activation is None else ACTIVATIONS[self.activation](z_NO)

    def to_dict(self) -> dict[str, Any]:
        described: dict[str, Any] = {"type": self.type, "units": self.units, "bias": self.bias}
        return described if self.activation is None else described | {"activation": self.activation}


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation as a layer of its own."""

    name: str
    type: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ModelError(
                f"activation is {self.name!r}; must be one of "
                f"{', '.join(ACTIVATIONS)}{nearest(self.name, ACTIVATIONS)}"
            )

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        del input_shape
        return ()

    def output_shape(self, input_shape: Shape) -> Shape:
        if self.name == "softmax" and len(input_shape) != 1:
            raise ModelError(
                f"softmax got samples of shape {input_shape}; must be one axis (put a flatten "
                "layer before it)"
            )
        return input_shape

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        del parameters
        return ACTIVATIONS[self.name](x)

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
class Flatten:
    """Each sample as one row of numbers; moves nothing."""

    type: ClassVar[str] = "flatten"

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        del input_shape
        return ()

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        del parameters
        return apply(Reshape((-1, math.prod(x.shape[1:]))), x)

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type}


def layer_from_dict(described: Mapping[str, Any]) -> Layer:
    """The layer that `Layer.to_dict` described; raises `ModelError` for unknown types and keys."""
    known: dict[str, Callable[..., Layer]] = {"dense": Dense, "flatten": Flatten}
    known |= {name: lambda name=name: Activation(name) for name in ACTIVATIONS}
    settings = dict(described)
    kind = settings.pop("type", None)
    if kind not in known:
        raise ModelError(
            f"layer type is {kind!r}; must be one of {', '.join(known)}{nearest(str(kind), known)}"
        )
    allowed: Sequence[str] = ("units", "activation", "bias") if kind == "dense" else ()
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise ModelError(
            f"a {kind} layer has no {unknown[0]!r}; it takes {', '.join(allowed) or 'no settings'}"
            f"{nearest(unknown[0], allowed)}"
        )
    if kind == "dense" and "units" not in settings:
        raise ModelError(
            "a dense layer has no units; must be a whole number of at least 1 (set units of the "
            "layer)"
        )
    return known[kind](**settings)
