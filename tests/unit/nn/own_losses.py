"""Losses of one's own, named by tests as ``module:Class``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from distsgd.base.settings import Setting
from distsgd.errors import ModelError
from distsgd.nn import NumberLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCosh(
    NumberLoss,
    value=lambda a, t, scale: scale * np.log(np.cosh((a - t) / scale)),
    gradient=lambda a, t, scale: np.tanh((a - t) / scale),
):
    """``scale · ln cosh((a - t) / scale)`` over the outputs."""

    scale: Annotated[float, Setting("where it becomes straight", "a number above 0", gt=0)] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Particular(NumberLoss):
    """Checks its own setting, which has no default, and can compute nothing."""

    limit: Any

    def __post_init__(self) -> None:
        NumberLoss.__post_init__(self)
        if self.limit != 3:
            raise ModelError(f"limit is {self.limit!r}; must be 3")


def no_loss() -> None:
    """Not a class."""
