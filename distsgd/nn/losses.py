"""Losses of a model: the gate that compares, what targets are, what a prediction is.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import numpy as np

from distsgd.autodiff import costs, functions, losses
from distsgd.autodiff.gate import Array, Gate
from distsgd.autodiff.tape import Operand, Variable, apply
from distsgd.errors import ModelError
from distsgd.nn.names import nearest


def _unchanged(outputs_NO: Variable) -> Variable:
    return outputs_NO


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss by name; each sample's loss is the sum over its outputs (`mean_absolute`: the mean).

    Attributes:
        name: As in a configuration.
        gate: From raw outputs ``[N, O]`` and targets to losses ``[N]``; holds the loss's settings.
        prediction: From raw outputs to what is shown to a user.
        fused_activation: The activation that the loss brings along; it must not end the network as
            well.
        option_names: Fields of the gate that can be set (`find_loss`).
    """

    name: str
    gate: Gate
    prediction: Callable[[Variable], Variable] = _unchanged
    fused_activation: str | None = None
    option_names: tuple[str, ...] = ()

    @property
    def target_kind(self) -> Literal["class", "number"]:
        """Class numbers ``[N]`` ("class") or numbers ``[N, O]`` ("number")."""
        return "class" if isinstance(self.gate, losses.ClassLoss) else "number"

    @property
    def options(self) -> dict[str, Any]:
        """The settings that can be set, by name."""
        return {name: getattr(self.gate, name) for name in self.option_names}

    def sample_losses(self, outputs_NO: Operand, target: Operand) -> Variable:
        """Losses ``[N]``; where no program records, `ModelError` for numbers outside the domain."""
        outputs_NO, target = self._fitting(outputs_NO, target)
        return apply(self.gate, outputs_NO, target)

    def check_values(self, outputs_NO: Array, target: Array) -> None:
        """Raises `ModelError` with the first output or target outside the loss's domain."""
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


LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            "softmax_cross_entropy",
            losses.SoftmaxCrossEntropy(),
            functions.softmax,
            fused_activation="softmax",
        ),
        Loss(
            "sigmoid_cross_entropy",
            losses.SigmoidCrossEntropy(),
            functions.sigmoid,
            fused_activation="sigmoid",
        ),
        Loss("squared_error", losses.SquaredError(1.0)),
        Loss("quadratic", losses.SquaredError(0.5)),
        Loss("cross_entropy", costs.CrossEntropy()),
        Loss("exponential", costs.Exponential(), option_names=("tau",)),
        Loss("hellinger", costs.Hellinger()),
        Loss("kullback_leibler", costs.KullbackLeibler()),
        Loss("generalised_kullback_leibler", costs.KullbackLeibler(generalised=True)),
        Loss("itakura_saito", costs.ItakuraSaito()),
        Loss("mean_absolute", costs.MeanAbsolute()),
        Loss("huber", costs.Huber(), option_names=("delta",)),
        Loss("hinge", costs.Hinge()),
    )
}


def find_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """The loss of that name; raises `ModelError` for an unknown one.

    Args:
        name: As in a configuration.
        options: Settings of the loss: `tau` of "exponential", `delta` of "huber".

    >>> find_loss("huber", {"delta": 2.0}).gate
    Huber(delta=2.0)
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ModelError(
            f"loss is {name!r}; must be one of {', '.join(LOSSES)}{nearest(str(name), LOSSES)}"
        )
    found = LOSSES[name]
    if options is not None and not isinstance(options, Mapping):
        raise ModelError(f"options of loss {name!r} are {options!r}; must be numbers by name")
    unknown = [option for option in options or () if option not in found.option_names]
    if unknown:
        raise ModelError(
            f"loss {name!r} has no option {unknown[0]!r}; it takes "
            f"{', '.join(found.option_names) or 'no options'}"
        )
    if not options:
        return found
    for option, value in options.items():
        if (
            not isinstance(value, Real)
            or isinstance(value, bool)
            or not 0 < float(value) < math.inf
        ):
            raise ModelError(f"{option} of loss {name!r} is {value!r}; must be a number above 0")
    return replace(found, gate=replace(found.gate, **options))  # type: ignore[type-var] # gates are dataclasses
