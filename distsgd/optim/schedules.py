"""Schedules: the learning rate as a pure function of the update's number. No I/O here.

All warm up the same way: linearly over `warmup_steps` updates, from ``peak_learning_rate /
warmup_steps`` at update 0 to the whole of it (Goyal et al., 2017, arXiv:1706.02677). What follows
counts from the end of the warm-up.

A schedule is a frozen dataclass; its settings are keys of ``[schedule]``, and `SCHEDULES` gives it
a name there. Nothing else has to know of a new one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from distsgd.base.settings import Setting

WARMUP = Setting("steps in which it rises to its peak", "a whole number, 0 or more", ge=0)
EVERY_STEPS = Setting('steps between two falls of "step"', "a whole number, 1 or more", ge=1)
FACTOR = Setting('what "step" multiplies by', "above 0 and at most 1", gt=0, le=1)
FINAL = Setting('what "cosine" ends at, of the peak', "at least 0 and at most 1", ge=0, le=1)


class Schedule(Protocol):
    """What the server needs of a schedule."""

    @property
    def peak_learning_rate(self) -> float:
        """The rate after the warm-up, before any fall."""
        ...

    def rate(self, step: int) -> float:
        """Learning rate of the update number `step`, counted from 0."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same rate for ever.

    Examples:
        >>> [Constant(0.5, warmup_steps=2).rate(step) for step in range(4)]
        [0.25, 0.5, 0.5, 0.5]
    """

    peak_learning_rate: float
    warmup_steps: Annotated[int, WARMUP] = 0

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        return _warmed_up(self.peak_learning_rate, step, self.warmup_steps)


@dataclass(frozen=True, slots=True)
class Step:
    """The rate times `factor` after every `every_steps` updates.

    Examples:
        >>> [Step(1.0, every_steps=2, factor=0.5).rate(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    peak_learning_rate: float
    every_steps: Annotated[int, EVERY_STEPS]
    factor: Annotated[float, FACTOR] = 0.1
    warmup_steps: Annotated[int, WARMUP] = 0

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        if step < self.warmup_steps:
            return _warmed_up(self.peak_learning_rate, step, self.warmup_steps)
        drops = (step - self.warmup_steps) // self.every_steps
        return self.peak_learning_rate * float(self.factor) ** drops


@dataclass(frozen=True, slots=True)
class Cosine:
    """Half a cosine from the whole rate down to `final_fraction` of it.

    Loshchilov and Hutter, 2017, arXiv:1608.03983. `total_steps` counts the warm-up. From update
    `total_steps` on the rate stays at ``final_fraction * peak_learning_rate``.

    Examples:
        >>> [round(Cosine(1.0, total_steps=4).rate(step), 3) for step in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    peak_learning_rate: float
    total_steps: int
    final_fraction: Annotated[float, FINAL] = 0.0
    warmup_steps: Annotated[int, WARMUP] = 0

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        if step < self.warmup_steps:
            return _warmed_up(self.peak_learning_rate, step, self.warmup_steps)
        if step >= self.total_steps:
            return self.peak_learning_rate * self.final_fraction
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        fraction = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.peak_learning_rate * (
            self.final_fraction + (1.0 - self.final_fraction) * fraction
        )


# Each is called with `peak_learning_rate`, and with `total_steps` of the run where it has such a
# field.
SCHEDULES: Mapping[str, type[Any]] = {"constant": Constant, "step": Step, "cosine": Cosine}


def _warmed_up(peak_learning_rate: float, step: int, warmup_steps: int) -> float:
    if step + 1 >= warmup_steps:
        return peak_learning_rate
    return peak_learning_rate * (step + 1) / warmup_steps
