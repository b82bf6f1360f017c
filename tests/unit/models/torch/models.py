"""Modules that tests train, and a shorter way to a model of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distsgd.models import Model, Recipe, RowSpec, model_of, torch_model

CLASSES = RowSpec((6,), "class", 3)
NUMBERS = RowSpec((6,), "number", 2, (2,))


def model_made_by(function: Callable[..., Any], rows: RowSpec = CLASSES, **said: Any) -> Model:
    """The model of a factory in this process; `said` as for `Recipe`."""
    return model_of(Recipe(torch_model(function), said.pop("options", {}), rows, **said))


def cross_entropy(outputs: Any, target: Any) -> Any:
    """One loss a row."""
    from torch.nn.functional import cross_entropy as of_torch

    return of_torch(outputs, target, reduction="none")


def mlp(inputs: int, outputs: int, width: int = 8) -> Any:
    """Two layers."""
    from torch import nn

    first, last = nn.Linear(inputs, width), nn.Linear(width, outputs)
    return nn.Sequential(first, nn.Tanh(), last), cross_entropy


def cnn(inputs: int, outputs: int, dropout: float = 0.0) -> Any:
    """A convolution, group norm, GELU and dropout over rows as square images."""
    from torch import nn

    side = int(inputs**0.5)
    net = nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(8 * (side // 2) ** 2, outputs),
    )
    return net, cross_entropy


def block(rows: RowSpec, count: int = 5, dtype: str = "float32") -> tuple[Any, Any]:
    """Made-up rows and their targets."""
    chance = np.random.default_rng(count)
    shape, target_shape = (count, *rows.input_shape), (count, *rows.target_shape)
    if rows.num_levels is None:
        x = chance.normal(size=shape).astype(dtype)
    else:
        x = chance.integers(0, rows.num_levels, shape).astype(dtype)
    if rows.target_kind == "class":
        return x, chance.integers(0, rows.num_outputs, target_shape)
    return x, chance.normal(size=target_shape).astype(dtype)
