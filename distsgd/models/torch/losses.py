"""Losses by name on the raw outputs of a module, with the meaning of those in `distsgd.nn.losses`.

Shape letters: N samples, O outputs, T places of a row that have a class each. None of them divides
by N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from distsgd.autodiff.gate import Shape
from distsgd.errors import ModelError
from distsgd.nn.losses import Loss

Tensor: TypeAlias = torch.Tensor
SampleLosses = Callable[[Tensor, Tensor], Tensor]
Prediction = Callable[[Tensor], Tensor]


def sample_losses_of(loss: Loss, num_outputs: int) -> tuple[SampleLosses, Prediction | None]:
    """One loss a row from raw outputs and targets, and what is shown of the outputs.

    Outputs are ``[N, O]``; where a row has a class at each of T places, ``[N, T, O]`` with targets
    ``[N, T]``, and its loss is the mean over the places, whatever their number.

    Args:
        loss: With its options.
        num_outputs: O, the classes, or the numbers of a target.

    Raises:
        ModelError: It is none that PyTorch has.
    """
    formula = _FORMULAS.get(loss.name)
    if formula is None:
        raise ModelError(
            f'model.loss is "{loss.name}", which is none for a module of PyTorch; must be one of '
            f"{', '.join(_FORMULAS)} (or have the factory return sample_losses of your own)"
        )
    options = {name: it for name, it in loss.options.items() if name != "reduction"}
    is_class = loss.target_kind == "class"
    is_mean = is_class or loss.name == "mean_absolute" or loss.options.get("reduction") == "mean"

    def sample_losses(outputs: Tensor, target: Tensor) -> Tensor:
        _check_shape(loss.name, outputs, (*target.shape, num_outputs) if is_class else target.shape)
        each = formula(outputs, target, **options)
        if each.ndim == 1:
            return each
        flat = each.flatten(1)
        return flat.mean(1) if is_mean else flat.sum(1)

    return sample_losses, _PREDICTIONS.get(loss.fused_activation or "")


def _check_shape(name: str, outputs: Tensor, shape: Shape) -> None:
    if outputs.shape != shape:
        raise ModelError(
            f"the module gives outputs of shape {tuple(outputs.shape)} for loss {name!r}; must be "
            f"{tuple(shape)} for these {len(outputs)} rows (its last layer must fit the targets)"
        )


def _softmax_cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    flat = functional.cross_entropy(outputs.flatten(0, -2), target.flatten(), reduction="none")
    return flat.view(target.shape)


def _hinge(outputs: Tensor, target: Tensor) -> Tensor:
    own = target.unsqueeze(-1)
    over = (outputs - outputs.gather(-1, own) + 1.0).relu()
    # The class itself is 1 over; it does not count.
    return over.scatter(-1, own, 0.0).sum(-1)


def _squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).square()


def _quadratic(outputs: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (outputs - target).square()


_FORMULAS: Mapping[str, Callable[..., Tensor]] = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sigmoid_cross_entropy": partial(functional.binary_cross_entropy_with_logits, reduction="none"),
    "squared_error": _squared_error,
    "quadratic": _quadratic,
    "mean_absolute": partial(functional.l1_loss, reduction="none"),
    "huber": partial(functional.huber_loss, reduction="none"),
    "hinge": _hinge,
}
_PREDICTIONS: Mapping[str, Any] = {
    "softmax": partial(functional.softmax, dim=-1),
    "sigmoid": torch.sigmoid,
}
