"""What a factory makes: the module, one loss a row, what is shown of the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.torch.settings import as_runs_compute, chance_by

Tensor: TypeAlias = torch.Tensor
SampleLosses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Parts:
    """A module in the memory of its own, and what is said of its outputs."""

    module: torch.nn.Module
    sample_losses: SampleLosses
    prediction: Callable[[Tensor], Tensor] | None = None


def made_with(recipe: Recipe, *, seed: int) -> Parts:
    """What the factory makes with PyTorch's chance keyed by `seed`.

    Raises:
        ConfigError: The factory cannot be found or called.
        ModelError: It raises an error, or makes something else.
    """
    with as_runs_compute(), chance_by(seed):
        made = recipe.make()
    is_right = isinstance(made, tuple) and 2 <= len(made) <= 3
    if not is_right or not isinstance(made[0], torch.nn.Module) or not all(map(callable, made)):
        raise ModelError(
            f"{recipe.name} makes a {type(made).__name__}; must make (module, sample_losses), or "
            "the same and prediction"
        )
    return Parts(*made)
