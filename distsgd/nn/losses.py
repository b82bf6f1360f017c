"""Losses of a model by name: the gate that compares, what targets are, what a prediction is.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import numpy as np

from distsgd.autodiff.ops import cross_entropies, losses
from distsgd.autodiff.ops.activations import ACTIVATIONS
from distsgd.autodiff.ops.domain import EVERY_NUMBER, Domain
from distsgd.autodiff.variable import Operand, Variable, apply
from distsgd.base.arrays import Array
from distsgd.base.named import find_object
from distsgd.base.settings import nearest, wrong_settings
from distsgd.errors import ConfigError, ModelError

LOSSES: Mapping[str, type[losses.SampleLoss] | str] = {
    "softmax_cross_entropy": cross_entropies.SoftmaxCrossEntropy,
    "sigmoid_cross_entropy": cross_entropies.SigmoidCrossEntropy,
    "squared_error": losses.SquaredError,
    "quadratic": losses.QuadraticError,
    "cross_entropy": cross_entropies.CrossEntropy,
    "exponential": "distsgd.lessons.losses:Exponential",
    "hellinger": "distsgd.lessons.losses:Hellinger",
    "kullback_leibler": "distsgd.lessons.losses:KullbackLeibler",
    "generalised_kullback_leibler": "distsgd.lessons.losses:GeneralisedKullbackLeibler",
    "itakura_saito": "distsgd.lessons.losses:ItakuraSaito",
    "mean_absolute": losses.MeanAbsolute,
    "huber": losses.Huber,
    "hinge": losses.Hinge,
}
"""Short names; any other loss is named ``module:Class``, its class found where it is used."""

_SQUARED_ERROR_FACTORS = {"squared_error": 1.0, "quadratic": 2.0}  # From loss to squared error.
# What an activation gives is between these.
_RANGES = {"relu": (0.0, math.inf), "tanh": (-1.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss by name; each sample's loss is the sum over its outputs (`mean_absolute`: the mean).

    Losses with the option `reduction` take the mean over the outputs instead with "mean": the mean
    squared error is squared_error so.

    Attributes:
        name: As in a configuration.
        gate: From raw outputs ``[N, O]`` and targets to losses ``[N]``; holds the loss's settings,
            and says what it takes.
    """

    name: str
    gate: losses.SampleLoss

    @property
    def fused_activation(self) -> Literal["softmax", "sigmoid"] | None:
        """The activation that the loss brings along; it must not end the network as well."""
        return self.gate.fused_activation

    @property
    def compares_probabilities(self) -> bool:
        """Whether outputs are read as probabilities, where they can be only such."""
        return self.gate.compares_probabilities

    @property
    def option_names(self) -> tuple[str, ...]:
        """Settings of the loss that can be set (`find_loss`)."""
        return _option_names(type(self.gate))

    def prediction(self, outputs_NO: Variable) -> Variable:
        """From raw outputs ``[N, O]`` to what is shown to a user, ``[N, O]``."""
        fused = self.fused_activation
        return outputs_NO if fused is None else apply(ACTIVATIONS[fused], outputs_NO)

    @property
    def target_kind(self) -> Literal["class", "number"]:
        """Class numbers ``[N]`` ("class") or numbers ``[N, O]`` ("number")."""
        return "class" if isinstance(self.gate, losses.ClassLoss) else "number"

    @property
    def target_domain(self) -> Domain:
        """Which numbers a target may be; classes are checked by their names."""
        return self.gate.target_domain

    @property
    def options(self) -> dict[str, Any]:
        """The settings that can be set, by name; a sum over the outputs goes without saying."""
        found = {name: getattr(self.gate, name) for name in self.option_names}
        return {
            name: value for name, value in found.items() if (name, value) != ("reduction", "sum")
        }

    def squared_error_factor(self, num_outputs: int) -> float | None:
        """From the loss to the squared error, a sum over the outputs; None for other losses."""
        factor = _SQUARED_ERROR_FACTORS.get(self.name)
        is_mean = self.options.get("reduction") == "mean"
        return factor * num_outputs if factor and is_mean else factor

    def check_last_layer(self, activation: str | None, num_outputs: int) -> None:
        """Raises `ModelError` where the loss makes no sense after such a last layer.

        Args:
            activation: That of the last layer; one that the loss brings along would be applied
                twice.
            num_outputs: Of the network.
        """
        if activation is not None and activation == self.fused_activation:
            raise ModelError(
                f"the last layer has activation {activation!r}, and loss {self.name!r} applies it "
                "as well; leave it out of the last layer"
            )
        if self.name == "softmax_cross_entropy" and num_outputs < 2:
            raise ModelError(
                "the last layer has 1 output, whose softmax is always 1; must be at least 2, "
                "one for each class (or use sigmoid_cross_entropy)"
            )
        if self.target_kind == "class" and num_outputs < 2:
            raise ModelError(
                f"the last layer has 1 output, with which loss {self.name!r} is always 0; must be "
                "at least 2, one for each class"
            )

    def output_advice(self, last: str | None) -> str:
        """What to say where outputs of the activation `last` can leave the domain; "" if not."""
        domain = self.gate.output_domain
        low, high = _RANGES.get(last or "", (-math.inf, math.inf))
        is_inside = domain.lowest < low or (domain.lowest == low and not domain.above)
        if self.fused_activation or last in ("sigmoid", "softmax") or domain == EVERY_NUMBER:
            return ""
        if is_inside and high <= domain.highest and not self.compares_probabilities:
            return ""
        wanted = "probabilities" if self.compares_probabilities else f"outputs {domain.rule}"
        return (
            f"loss {self.name!r} takes {wanted}, and the last layer's outputs can be other numbers "
            '(end the network with "softmax" or "sigmoid", or choose another loss)'
        )

    def sample_losses(self, outputs_NO: Operand, target: Operand) -> Variable:
        """Losses ``[N]``; where no program records, `ModelError` for numbers outside the domain."""
        outputs_NO, target = self._fitting(outputs_NO, target)
        return apply(self.gate, outputs_NO, target)

    def check_values(self, outputs_NO: Array, target: Array) -> None:
        """Raises `ModelError` with the first number outside the loss's domain.

        Args:
            outputs_NO: Raw outputs ``[N, O]``.
            target: Class numbers ``[N]`` or numbers ``[N, O]``.
        """
        outputs, targets = self._fitting(outputs_NO, target)
        self.gate.check_values(outputs.value, targets.value)

    def _fitting(self, outputs_NO: Operand, target: Operand) -> tuple[Variable, Variable]:
        """Both as Variables, class numbers as int64; `ModelError` where they are not."""
        outputs = _as_variable(self.name, "outputs", outputs_NO, "fiub")
        is_class = self.target_kind == "class"
        if is_class:
            targets = _as_variable(self.name, "class numbers", target, "iu", np.dtype(np.int64))
        else:
            targets = _as_variable(self.name, "targets", target, "fiub", outputs.dtype)
        self.gate.output_shape(outputs.shape, targets.shape)
        return outputs, targets

    def __reduce__(self) -> tuple[Callable[..., Loss], tuple[str, dict[str, Any]]]:
        return find_loss, (self.name, self.options)


def _as_variable(
    loss: str, what: str, value: Operand, kinds: str, dtype: np.dtype[Any] | None = None
) -> Variable:
    """Numbers whose dtype is of `kinds`; floating ones keep it, others get `dtype`."""
    try:
        array = value.value if isinstance(value, Variable) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{loss} got {what} that are no array: {error}; give numbers") from None
    if array.dtype.kind not in kinds:
        rule = "whole numbers" if "f" not in kinds else "numbers"
        raise ModelError(f"{loss} got {what} of dtype {array.dtype}; must be {rule}")
    if isinstance(value, Variable) and ("f" in kinds or array.dtype == dtype):
        return value
    return Variable(array, watched=False, dtype=None if array.dtype.kind == "f" else dtype)


def find_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """The loss of that name, with its options; the loss itself checks them.

    Args:
        name: As in a configuration: one of `LOSSES`, or ``module:Class``, a subclass of
            `distsgd.autodiff.ops.losses.SampleLoss`.
        options: Settings of the loss: `tau` of "exponential", `delta` of "huber", `reduction`
            ("sum" or "mean" over the outputs) of those that compare output by output.

    Raises:
        ModelError: There is no such loss, or it does not take these options.

    >>> find_loss("huber", {"delta": 2.0}).gate
    Huber(reduction='sum', delta=2.0)
    """
    kind = _kind_of(name)
    if options is not None and not isinstance(options, Mapping):
        raise ModelError(f"options of loss {name!r} are {options!r}; must be numbers by name")
    known = _option_names(kind)
    unknown = [option for option in options or () if option not in known]
    if unknown:
        raise ModelError(
            f"loss {name!r} has no option {unknown[0]!r}; it takes "
            f"{', '.join(known) or 'no options'}"
        )
    try:
        return Loss(name, kind(**(options or {})))
    except TypeError as error:
        raise ModelError(
            f"loss {name!r} cannot be made with options {dict(options or {})}: {error} (edit them)"
        ) from None


def wrong_options(name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Options that the loss `name` does not take, each with what it must be, or "" if unknown.

    Raises `ModelError` where there is no such loss, or where all options are right and the loss
    refuses them together.
    """
    kind = _kind_of(name)
    wrong = [(option, "") for option in options if option not in _option_names(kind)]
    wrong += [(option, key.setting.rule) for option, key in wrong_settings(kind, options)]
    if not wrong:
        find_loss(name, options)
    yield from wrong


def _kind_of(name: str) -> type[losses.SampleLoss]:
    kind = LOSSES.get(name, name) if isinstance(name, str) else None
    if isinstance(kind, str) and ":" in kind:
        try:
            kind = find_object(kind)
        except ConfigError as error:
            raise ModelError(f"loss {error.problems[0]}") from None
        if not (isinstance(kind, type) and issubclass(kind, losses.SampleLoss)):
            raise ModelError(
                f"loss {name!r} is {kind!r}; must be a subclass of NumberLoss or ClassLoss "
                "(from distsgd.nn import NumberLoss)"
            )
    if not isinstance(kind, type):
        raise ModelError(
            f"loss is {name!r}; must be one of {', '.join(LOSSES)}, or module:Class"
            f"{nearest(str(name), LOSSES)}"
        )
    return kind


def _option_names(kind: type[losses.SampleLoss]) -> tuple[str, ...]:
    """The fields of a loss, its own before those that others have too."""
    names: list[str] = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    return tuple(sorted(names, key=lambda name: name == "reduction"))


def num_correct(outputs: Array, target: Array) -> int:
    """Places whose largest output is their class; a row has one, or as many as its target's axes.

    Args:
        outputs: ``[N, *target_shape, C]``; ``[N, C]`` for one class a row.
        target: Class numbers ``[N, *target_shape]``, or the same one-hot, of the outputs' shape.

    >>> num_correct(np.array([[[0.1, 0.9], [0.8, 0.2]]]), np.array([[1, 1]]))
    1
    """
    classes = target if target.ndim < outputs.ndim else target.argmax(axis=-1)
    return int(np.count_nonzero(outputs.argmax(axis=-1) == classes))
