"""Layers: compositions of gates with named parameters.

Shape letters: N samples, I inputs, O outputs. A layer never sees how many samples there are. No
I/O here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec
from distsgd.autodiff.ops.activations import ACTIVATIONS
from distsgd.autodiff.ops.elementwise import Elementwise
from distsgd.autodiff.ops.linear import Affine
from distsgd.autodiff.ops.shapes import Reshape as ReshapeGate
from distsgd.autodiff.variable import Variable, apply
from distsgd.base.settings import Setting, count, keys_of, nearest, quoted, wrong_settings
from distsgd.errors import ModelError

if TYPE_CHECKING:
    ActivationName = str
    ElementwiseName = str
else:
    ActivationName = Literal[tuple(ACTIVATIONS)]
    ElementwiseName = Literal[
        tuple(name for name, gate in ACTIVATIONS.items() if isinstance(gate, Elementwise))
    ]

BIAS = Setting("whether b is added", "true or false")


def activation_setting(name: Any) -> Setting:
    """What is said of an activation whose `name` is of that Literal."""
    return Setting("applied to the outputs", f"{quoted(get_args(name))} or left out")


class Layer:
    """What a model is made of; subclasses are frozen dataclasses of their settings, and picklable.

    A field that is annotated with a `Setting` is a key of the configuration, which takes its
    meaning, rule, bounds and default from here; a value that may not stand there is refused
    (`ModelError`). A file's `LAYERS` are those that a configuration knows.

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

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in keys_of(type(self))}
        for name, key in wrong_settings(type(self), values):
            value, rule = values[name], key.setting.rule
            near = nearest(str(value), re.findall(r'"(\w+)"', rule))
            raise ModelError(f"{name} is {value!r}; must be {rule}{near} (set {name} of the layer)")

    @classmethod
    def types(cls) -> tuple[str, ...]:
        """What `type` of a configuration may be for such a layer."""
        return (cls.type,)

    @classmethod
    def of_type(cls, kind: str, settings: Mapping[str, Any]) -> Layer:
        """The layer of type `kind` with these settings."""
        del kind
        return cls(**settings)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        """Its parameters for one sample of `input_shape`; none unless a layer says otherwise."""
        del input_shape
        return ()

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one sample of its output; raises `ModelError` where the input does not fit."""
        raise NotImplementedError

    def numbers_per_sample(self, input_shape: Shape) -> int:
        """About how many numbers training holds for one sample; an activation has its own."""
        gate = ACTIVATIONS.get(getattr(self, "activation", None) or "")
        held = gate.numbers_held() if isinstance(gate, Elementwise) else gate is not None
        return (self.numbers_per_output + held) * math.prod(self.output_shape(input_shape))

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        """Its output for all samples."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as in a configuration."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type] # subclasses are dataclasses
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
        return {"type": self.type} | {name: v for name, v in plain.items() if v is not None}


@dataclass(frozen=True, slots=True)
class Dense(Layer):
    """``activation(x @ weight + bias)``, with the weight as inputs x outputs."""

    units: Annotated[int, count("number of outputs")]
    activation: Annotated[ActivationName | None, activation_setting(ActivationName)] = None
    bias: Annotated[bool, BIAS] = True
    type: ClassVar[str] = "dense"

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
        z_NO = apply(Affine(), x, weight, parameters["bias"]) if self.bias else x @ weight
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

    @classmethod
    def types(cls) -> tuple[str, ...]:
        """The names of all activations."""
        return tuple(ACTIVATIONS)

    @classmethod
    def of_type(cls, kind: str, settings: Mapping[str, Any]) -> Layer:
        """The activation that is called `kind`; it has no settings."""
        assert not settings
        return cls(kind)

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
        """Its own name, as a dense layer says that of the activation after it."""
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

    shape: Annotated[
        tuple[int, ...],
        Setting("sizes of a row's axes", "a list of whole numbers, 1 or more", ge=1),
    ]
    type: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        if isinstance(self.shape, list):
            object.__setattr__(self, "shape", tuple(self.shape))
        Layer.__post_init__(self)  # Not `super()`: see `Convolution`.

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


LAYERS: tuple[type[Layer], ...] = (Dense, Flatten, Reshape)
