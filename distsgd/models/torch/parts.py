"""What a factory makes: the module, one loss a row, what is shown of the outputs.

Shape letter: N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.nn.parameter import is_lazy

from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.torch.losses import sample_losses_of
from distsgd.models.torch.settings import Computing

Tensor: TypeAlias = torch.Tensor
SampleLosses = Callable[[Tensor, Tensor], Tensor]
_FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class Parts:
    """A module in the memory of its own, and what is said of its outputs."""

    module: torch.nn.Module
    sample_losses: SampleLosses
    prediction: Callable[[Tensor], Tensor] | None = None

    def outputs(self, inputs: Tensor) -> Tensor:
        """Of a block, ``[N, ...]``. Raises ModelError where they are something else."""
        outputs = self.module(inputs)
        if not isinstance(outputs, torch.Tensor):
            raise ModelError(
                f"{_kind(self.module)} gives a {type(outputs).__name__}; must be one tensor of raw "
                "outputs, [N, ...] (have its forward return that alone)"
            )
        if outputs.shape[:1] != inputs.shape[:1] or outputs.dtype not in _FLOATS:
            raise ModelError(
                f"{_kind(self.module)} gives {outputs.dtype} outputs of shape "
                f"{tuple(outputs.shape)} for {len(inputs)} rows; must be float32 or float64, "
                f"({len(inputs)}, ...), the outputs of a row in the row's place"
            )
        return outputs

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One for each row, ``[N]``. Raises ModelError where they are something else."""
        losses, rows = self.sample_losses(outputs, target), outputs.shape[:1]
        if (
            not isinstance(losses, torch.Tensor)
            or losses.shape != rows
            or losses.dtype not in _FLOATS
        ):
            what = (
                _shown(losses) if isinstance(losses, torch.Tensor) else f"a {type(losses).__name__}"
            )
            raise ModelError(
                f"sample_losses gives {what} for {len(outputs)} rows; must be {tuple(rows)}, one "
                'loss for each row (reduction="none", and the sum or mean over the rest of it)'
            )
        return losses


def made_with(recipe: Recipe, *, seed: int, dtype: torch.dtype = torch.float32) -> Parts:
    """What the factory makes, with chance keyed by `seed`; all its floats are of `dtype`.

    Raises:
        ConfigError: The factory cannot be found or called.
        ModelError: It raises an error, makes something else, or a module that cannot be trained.
    """
    with Computing(seed, dtype, grad=True):
        parts = _parts(recipe, recipe.make())
        _check_parameters(parts.module)
        _convert_inplace(parts.module, dtype)
    return parts


def _parts(recipe: Recipe, made: Any) -> Parts:
    loss = recipe.named_loss
    if isinstance(made, torch.nn.Module):
        if loss is None:
            raise ModelError(
                f"{recipe.name} makes a module alone, and no loss is named; set [model] loss, or "
                "return (module, sample_losses)"
            )
        return Parts(made, *sample_losses_of(loss, recipe.rows.num_outputs))
    is_right = isinstance(made, tuple) and 2 <= len(made) <= 3
    if not is_right or not isinstance(made[0], torch.nn.Module) or not all(map(callable, made)):
        raise ModelError(
            f"{recipe.name} makes a {type(made).__name__}; must make (module, sample_losses), the "
            "same and prediction, or a module alone with [model] loss"
        )
    if loss is not None:
        raise ModelError(
            f'model.loss is "{loss.name}", and {recipe.name} makes sample_losses of its own; '
            "remove loss from [model], or return the module alone"
        )
    return Parts(*made)


def _check_parameters(module: torch.nn.Module) -> None:
    """Raises ModelError unless all parameters are numbers to learn."""
    named = dict(module.named_parameters())
    if not named:
        raise ModelError(f"{_kind(module)} has no parameters; nothing can learn")
    for name, it in named.items():
        if is_lazy(it):
            raise ModelError(
                f"parameter {name} has no shape before the module runs first; give the layer its "
                "size (as in nn.Linear(in_features=inputs, out_features=outputs)), or run the "
                "module once in the factory"
            )
        if not it.is_floating_point():
            rule = "must be real floats (make it a buffer, or two parameters of real numbers)"
            raise ModelError(f"parameter {name} is {it.dtype}; {rule}")
        if not it.requires_grad:
            raise ModelError(
                f"parameter {name} has requires_grad=False; what stays as it is, is named in "
                f'[optimizer] frozen = ["{name}"] (or made a buffer), and keeps requires_grad=True'
            )


def _convert_inplace(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Floats to `dtype`; what is complex or whole stays, which ``module.to`` would change."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to("cpu", dtype)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            setattr(owner, name, buffer.to("cpu", dtype if buffer.is_floating_point() else None))


def _kind(module: torch.nn.Module) -> str:
    return type(module).__name__


def _shown(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
