"""Losses of a model: the gate that compares, what targets are, what a prediction is.

No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from distsgd.autodiff import functions
from distsgd.autodiff.tape import Operand, Variable
from distsgd.errors import ModelError
from distsgd.nn.names import nearest


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss by name; each sample's loss is the sum over its outputs.

    Attributes:
        name: As in a configuration.
        target_kind: "class" for class numbers ``[N]``, "number" for numbers ``[N, O]``.
        sample_losses: From raw outputs and targets to losses ``[N]``.
        prediction: From raw outputs to what is shown to a user.
        fused_activation: The activation that the loss brings along; it must not end the network as
            well.
    """

    name: str
    target_kind: Literal["class", "number"]
    sample_losses: Callable[[Operand, Operand], Variable]
    prediction: Callable[[Variable], Variable]
    fused_activation: str | None = None

    def __reduce__(self) -> tuple[Callable[[str], Loss], tuple[str]]:
        return find_loss, (self.name,)


def _unchanged(outputs_NO: Variable) -> Variable:
    return outputs_NO


LOSSES = {
    loss.name: loss
    for loss in (
        Loss(
            "softmax_cross_entropy",
            "class",
            functions.softmax_cross_entropy,
            functions.softmax,
            "softmax",
        ),
        Loss(
            "sigmoid_cross_entropy",
            "number",
            functions.sigmoid_cross_entropy,
            functions.sigmoid,
            "sigmoid",
        ),
        Loss("squared_error", "number", functions.squared_error, _unchanged),
        Loss("quadratic", "number", functions.quadratic, _unchanged),
    )
}


def find_loss(name: str) -> Loss:
    """The loss of that name; raises `ModelError` for an unknown one."""
    if name not in LOSSES:
        raise ModelError(
            f"loss is {name!r}; must be one of {', '.join(LOSSES)}{nearest(str(name), LOSSES)}"
        )
    return LOSSES[name]
