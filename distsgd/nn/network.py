"""A network: layers and a loss over flat parameters. It holds no numbers, only what they mean.

Shape letters: N samples, O outputs, P parameters. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec, Signature, total_size, views
from distsgd.autodiff.ops.domain import Domain
from distsgd.autodiff.program import Program
from distsgd.autodiff.tape import GradientTape
from distsgd.autodiff.variable import Variable
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.nn.layer_types import layer_from_dict
from distsgd.nn.layers import Flatten, Layer, Reshape
from distsgd.nn.losses import Loss, find_loss
from distsgd.nn.regularisation import Dropout
from distsgd.nn.weights import check_flat, start_values

# Rows of one block of a prediction: fixed, since cutting differently gives other bits.
PREDICTION_ROWS = 256


@dataclass(frozen=True, slots=True)
class Network:
    """Layers, a loss and the shape of one sample; checked when it is made (`ModelError`).

    Attributes:
        layers: In the order of the forward.
        loss: A loss or its name.
        input_shape: Shape of one sample.
        parameters: Named ``layers.0.weight``, ``layers.0.bias``, …, in the order in which they lie
            in the flat array ``[P]``, each row-major; weights are inputs x outputs.
        num_outputs: Outputs of the last layer.

    >>> from distsgd.nn.layers import Dense
    >>> model = Network([Dense(3, "relu"), Dense(2)], "quadratic", (4,))
    >>> model.num_parameters
    23
    >>> [spec.name for spec in model.parameters]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    """

    layers: tuple[Layer, ...]
    loss: Loss
    input_shape: Shape
    parameters: tuple[ParameterSpec, ...] = field(init=False, repr=False, compare=False)
    num_outputs: int = field(init=False, repr=False, compare=False)

    def __init__(
        self, layers: Sequence[Layer], loss: Loss | str, input_shape: Sequence[int]
    ) -> None:
        _check_layers(layers)
        shape = _checked_shape(input_shape)
        found = loss if isinstance(loss, Loss) else find_loss(loss)
        parameters: list[ParameterSpec] = []
        before = shape
        for number, layer in enumerate(layers):
            try:
                after = layer.output_shape(before)
            except ModelError as error:
                raise ModelError(f"layers.{number}: {error}") from None
            specs = layer.parameters(before)
            parameters += [
                ParameterSpec(f"layers.{number}.{spec.name}", spec.shape) for spec in specs
            ]
            before = after
        if len(before) != 1:
            raise ModelError(
                f"the last layer's samples have shape {before}; must be one axis (add a flatten "
                "layer)"
            )
        found.check_last_layer(getattr(layers[-1], "activation", None), before[0])
        for name, value in (
            ("layers", tuple(layers)),
            ("loss", found),
            ("input_shape", shape),
            ("parameters", tuple(parameters)),
            ("num_outputs", before[0]),
        ):
            object.__setattr__(self, name, value)

    @property
    def num_parameters(self) -> int:
        """P, how many numbers all parameters hold."""
        return total_size(self.parameters)

    @property
    def numbers_per_sample(self) -> int:
        """About how many numbers training holds for each sample of a block, its input apart."""
        shape, numbers = self.input_shape, 0
        for layer in self.layers:
            numbers += layer.numbers_per_sample(shape)
            shape = layer.output_shape(shape)
        return numbers

    @property
    def library_bytes(self) -> int:
        """Nothing: all it computes is numpy's."""
        return 0

    @property
    def target_kind(self) -> Literal["class", "number"]:
        """Whether a target is a class number (int64 ``[N]``) or numbers (``[N, O]``)."""
        return self.loss.target_kind

    @property
    def last_activation(self) -> str | None:
        """The activation that ends the network, None for none; what the loss applies apart."""
        for layer in reversed(self.layers):
            if not isinstance(layer, Flatten | Reshape):
                return getattr(layer, "activation", None)
        return None

    @property
    def has_probabilities(self) -> bool:
        """Whether what `predict` gives are probabilities, each from 0 to 1; else they are scores.

        So it is with a loss that compares probabilities, where a softmax or sigmoid makes them.
        """
        makes_them = self.loss.fused_activation or self.last_activation
        return self.loss.compares_probabilities and makes_them in ("sigmoid", "softmax")

    @property
    def output_advice(self) -> str:
        """What to say where outputs can leave the domain of the loss; "" where they cannot."""
        return self.loss.output_advice(self.last_activation)

    def views(self, flat: Array) -> dict[str, Array]:
        """The parameters by name, as views of `flat`, shape ``[P]``: nothing is copied."""
        check_flat(flat, kinds="fiub")
        return views(self.parameters, flat)

    def state_dict(self, flat: Array) -> dict[str, Array]:
        """The parameters, views of `flat`, ``[P]``: it has nothing besides."""
        return self.views(flat)

    def initialise(self, init: str, seed: int, dtype: DTypeLike = np.float32) -> Array:
        """Start weights ``[P]`` by "glorot" or "he", uniform by keyed chance, or "zeros".

        Biases are 0, gains 1.
        """
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ModelError(f"seed is {seed!r}; must be a whole number, 0 or more")
        flat = np.empty(self.num_parameters, _checked_dtype(dtype))
        for index, (name, view) in enumerate(self.views(flat).items()):
            _, number, own = name.split(".")
            start = self.layers[int(number)].starts.get(own)
            view[...] = (
                start_values(init, view.shape, seed=seed, index=index) if start is None else start
            )
        return flat

    @property
    def chance(self) -> Literal["none", "row"]:
        """By a key for each row where some of its layers leave to chance in training."""
        return "row" if any(isinstance(layer, Dropout) for layer in self.layers) else "none"

    @property
    def target_shape(self) -> Shape:
        """Of one sample: ``()`` for a class, ``(O,)`` for numbers."""
        return () if self.target_kind == "class" else (self.num_outputs,)

    @property
    def target_domain(self) -> Domain:
        """Which numbers a target may be."""
        return self.loss.target_domain

    @property
    def outline(self) -> str:
        """Its sizes: 784 - 30 - 10."""
        kinds = [str(getattr(layer, "units", layer.type)) for layer in self.layers]
        return " - ".join([" x ".join(map(str, self.input_shape)), *kinds])

    @property
    def loss_name(self) -> str:
        """As in a configuration."""
        return self.loss.name

    @property
    def squared_error_factor(self) -> float | None:
        """From the loss to the squared error, a sum over the outputs; None for other losses."""
        return self.loss.squared_error_factor(self.num_outputs)

    def outputs(
        self, x: Variable, parameters: Mapping[str, Variable], keys: Variable | None = None
    ) -> Variable:
        """Raw outputs ``[N, O]`` under whatever tape is open; parameters by their full names.

        With `keys`, uint64 ``[N]``, as in training, without as in evaluation.
        """
        for number, layer in enumerate(self.layers):
            prefix = f"layers.{number}."
            own = {
                name.removeprefix(prefix): p
                for name, p in parameters.items()
                if name.startswith(prefix)
            }
            if isinstance(layer, Dropout) and keys is not None:
                x = layer.leave_out(x, keys, number)
            else:
                x = layer(x, own)
        return x

    def program(
        self, max_rows: int, dtype: DTypeLike, *, per_sample: bool, keep_all: bool = False
    ) -> Program:
        """Forward and backward over at most `max_rows` samples, static; see `Program`.

        Args:
            max_rows: Most samples that can be bound, 1 or more.
            dtype: float32 or float64: of inputs, parameters and all that is computed.
            per_sample: Whether `backward` gives exact per-sample squared norms.
            keep_all: Whether every value and gradient stays readable, at the cost of memory.

        Raises:
            ModelError: An argument cannot be used, or a layer has no per-sample norms.
        """

        def sample_losses(
            parameters: Mapping[str, Variable],
            x: Variable,
            target: Variable,
            keys: Variable | None = None,
        ) -> tuple[Variable, Variable]:
            outputs_NO = self.outputs(x, parameters, keys)
            return self.loss.sample_losses(outputs_NO, target), outputs_NO

        if not isinstance(max_rows, int) or isinstance(max_rows, bool):
            raise ModelError(f"max_rows is {max_rows!r}; must be a whole number of at least 1")
        dtype = _checked_dtype(dtype)
        signature = Signature(
            parameters=self.parameters,
            input_shape=self.input_shape,
            target_shape=self.target_shape,
            target_dtype=np.dtype(np.int64 if self.target_kind == "class" else dtype),
            dtype=np.dtype(dtype),
            has_keys=self.chance == "row",
        )
        return Program(
            sample_losses, signature, max_rows=max_rows, per_sample=per_sample, keep_all=keep_all
        )

    def predict(self, flat: Array, x: Array) -> Array:
        """Predictions ``[N, O]``: see `has_probabilities`; without them the raw outputs, scores.

        Args:
            flat: Parameters ``[P]``; their dtype is computed in.
            x: Any number of samples; computed in blocks of 256, so that a row's bits depend on its
                place only.
        """
        check_flat(flat)
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise ModelError(f"samples are no array: {error}; give rows of one shape") from None
        if x.dtype.kind not in "fiub" or not x.ndim:
            raise ModelError(f"samples are {x.dtype} of shape {x.shape}; must be rows of numbers")
        x = np.ascontiguousarray(x, flat.dtype)
        if x.shape[1:] != self.input_shape:
            raise ModelError(
                f"samples have shape {x.shape[1:]}; must be {self.input_shape}, as the model was "
                "made for"
            )
        parameters = {
            name: Variable(array, watched=False) for name, array in self.views(flat).items()
        }
        predictions_NO = np.empty((len(x), self.num_outputs), flat.dtype)
        for first in range(0, len(x), PREDICTION_ROWS):
            block = Variable(x[first : first + PREDICTION_ROWS], watched=False)
            rows = self.loss.prediction(self.outputs(block, parameters))
            predictions_NO[first : first + PREDICTION_ROWS] = rows.value
        return predictions_NO

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """Predictions ``[N, O]``, and the gradient of each row's loss by its raw outputs."""
        outputs = Variable(outputs_NO.copy())
        # A run whose outputs leave the domain of its loss is told apart by its loss, step by step.
        with GradientTape(check_values=False) as tape:
            losses = self.loss.sample_losses(
                outputs, Variable(target, watched=False, dtype=target.dtype)
            )
        return self.loss.prediction(outputs).value, tape.gradient(losses, outputs)

    def arithmetic(self, dtype: DTypeLike) -> Mapping[str, str]:
        """Nothing: all it computes is numpy's."""
        del dtype
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` makes the same model."""
        described: dict[str, Any] = {
            "layers": [layer.to_dict() for layer in self.layers],
            "loss": self.loss.name,
            "input_shape": list(self.input_shape),
        }
        return described | ({"loss_options": self.loss.options} if self.loss.options else {})

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Network:
        """The model that `to_dict` described; `ModelError` for what is missing or unknown."""
        if not isinstance(described, Mapping):
            raise ModelError(f"the model is {described!r}; must be what to_dict gave")
        missing = [key for key in ("layers", "loss", "input_shape") if key not in described]
        if missing:
            raise ModelError(
                f"the model has no {missing[0]!r}; must have layers, loss and input_shape"
            )
        if not isinstance(described["layers"], list | tuple):
            raise ModelError(f"layers is {described['layers']!r}; must be a list of layers")
        layers = [layer_from_dict(layer) for layer in described["layers"]]
        loss = find_loss(described["loss"], described.get("loss_options"))
        return cls(layers, loss, described["input_shape"])


def _check_layers(layers: object) -> None:
    if not isinstance(layers, Sequence) or not all(isinstance(layer, Layer) for layer in layers):
        raise ModelError(f"layers is {layers!r}; must be a list of layers (such as [Dense(10)])")
    if not layers:
        raise ModelError("the model has no layers; must have at least one (add a dense layer)")


def _checked_shape(input_shape: object) -> Shape:
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else input_shape
    if not isinstance(shape, tuple) or not all(
        isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1
        for size in shape
    ):
        raise ModelError(f"input_shape is {shape!r}; must hold whole numbers of at least 1")
    return tuple(int(size) for size in shape)


def _checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        found = np.dtype(object)
    if dtype is None or found.kind != "f":
        raise ModelError(f"dtype is {dtype!r}; must be float32 or float64")
    return found
