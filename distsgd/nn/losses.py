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

from distsgd.autodiff import functions
from distsgd.autodiff.ops import costs, divergences, losses
from distsgd.autodiff.ops.domain import Domain
from distsgd.autodiff.tape import Operand, Variable, apply
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.nn.names import nearest


def _unchanged(outputs_NO: Variable) -> Variable:
    return outputs_NO


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss by name; each sample's loss is the sum over its outputs (`mean_absolute`: the mean).

    Losses with the option `reduction` take the mean over the outputs instead with "mean": the mean
    squared error is squared_error so.

    Attributes:
        name: As in a configuration.
        gate: From raw outputs ``[N, O]`` and targets to losses ``[N]``; holds the loss's settings.
        prediction: From raw outputs to what is shown to a user.
        fused_activation: The activation that the loss brings along; it must not end the network as
            well.
        option_names: Fields of the gate that can be set (`find_loss`).
        compares_probabilities: Whether outputs are read as probabilities, where they can be only
            such.
    """

    name: str
    gate: losses.SampleLoss
    prediction: Callable[[Variable], Variable] = _unchanged
    fused_activation: str | None = None
    option_names: tuple[str, ...] = ()
    compares_probabilities: bool = False

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


_MEAN = ("reduction",)

LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            "softmax_cross_entropy",
            losses.SoftmaxCrossEntropy(),
            functions.softmax,
            fused_activation="softmax",
            compares_probabilities=True,
        ),
        Loss(
            "sigmoid_cross_entropy",
            losses.SigmoidCrossEntropy(),
            functions.sigmoid,
            fused_activation="sigmoid",
            option_names=_MEAN,
            compares_probabilities=True,
        ),
        Loss("squared_error", losses.SquaredError(factor=1.0), option_names=_MEAN),
        Loss("quadratic", losses.SquaredError(factor=0.5), option_names=_MEAN),
        Loss(
            "cross_entropy", costs.CrossEntropy(), option_names=_MEAN, compares_probabilities=True
        ),
        Loss("exponential", costs.Exponential(), option_names=("tau",)),
        Loss("hellinger", divergences.Hellinger(), option_names=_MEAN),
        Loss(
            "kullback_leibler",
            divergences.KullbackLeibler(),
            option_names=_MEAN,
            compares_probabilities=True,
        ),
        Loss(
            "generalised_kullback_leibler",
            divergences.KullbackLeibler(generalised=True),
            option_names=_MEAN,
        ),
        Loss("itakura_saito", divergences.ItakuraSaito(), option_names=_MEAN),
        Loss("mean_absolute", costs.MeanAbsolute()),
        Loss("huber", costs.Huber(), option_names=("delta", *_MEAN)),
        Loss("hinge", costs.Hinge()),
    )
}


def find_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """The loss of that name; raises `ModelError` for an unknown one.

    Args:
        name: As in a configuration.
        options: Settings of the loss: `tau` of "exponential", `delta` of "huber", `reduction`
            ("sum" or "mean" over the outputs) of those that compare output by output.

    >>> find_loss("huber", {"delta": 2.0}).gate
    Huber(reduction='sum', delta=2.0)
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
        if option != "reduction" and (
            not isinstance(value, Real)
            or isinstance(value, bool)
            or not 0 < float(value) < math.inf
        ):
            raise ModelError(f"{option} of loss {name!r} is {value!r}; must be a number above 0")
    return replace(found, gate=replace(found.gate, **options))  # type: ignore[type-var] # gates are dataclasses
