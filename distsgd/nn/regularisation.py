"""Layers that steady training: layer normalisation and dropout. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec
from distsgd.autodiff.ops.dropout import Dropout as DropoutGate
from distsgd.autodiff.ops.normalisation import LayerNormalisation
from distsgd.autodiff.variable import Variable, apply
from distsgd.base.settings import Setting
from distsgd.nn.layers import Layer


@dataclass(frozen=True, slots=True)
class LayerNorm(Layer):
    """Each sample's last axis with mean 0 and variance 1, times a gain, plus a bias.

    The gain starts at 1, the bias at 0. On images each pixel is normalised over its channels.
    """

    type: ClassVar[str] = "layer_norm"
    numbers_per_output: ClassVar[int] = 7
    starts: ClassVar[Mapping[str, float]] = {"gain": 1.0}

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return ParameterSpec("gain", input_shape[-1:]), ParameterSpec("bias", input_shape[-1:])

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        return apply(LayerNormalisation(), x, parameters["gain"], parameters["bias"])


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """Leaves numbers out with probability `rate` in training, and nothing in evaluation.

    What is left out depends on the rows' keys, so on seed, step and row, never on block or worker.
    """

    rate: Annotated[float, Setting("share left out", "at least 0 and below 1", ge=0, lt=1)]
    type: ClassVar[str] = "dropout"
    numbers_per_output: ClassVar[int] = 4

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def __call__(self, x: Variable, parameters: Mapping[str, Variable]) -> Variable:
        """Evaluation: `x` itself."""
        del parameters
        return x

    def leave_out(self, x: Variable, keys: Variable, layer: int) -> Variable:
        """Training: `x` with numbers left out, by the rows' `keys` and the layer's number."""
        return apply(DropoutGate(self.rate, layer), x, keys)


LAYERS: tuple[type[Layer], ...] = (LayerNorm, Dropout)
