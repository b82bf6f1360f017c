"""Schedules: the learning rate as a pure function of the update's number. No I/O here.

All warm up the same way: linearly over `warmup_steps` updates, from ``learning_rate /
warmup_steps`` at update 0 to the whole of it (Goyal et al., 2017, arXiv:1706.02677). What follows
counts from the end of the warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from distsgd.errors import ConfigError


class Schedule(Protocol):
    """What the server needs of a schedule."""

    @property
    def learning_rate(self) -> float:
        """The rate at the top."""
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

    learning_rate: float
    warmup_steps: int = 0

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        return _warmed_up(self.learning_rate, step, self.warmup_steps)


@dataclass(frozen=True, slots=True)
class Step:
    """The rate times `factor` after every `every_steps` updates.

    Examples:
        >>> [Step(1.0, every_steps=2, factor=0.5).rate(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    learning_rate: float
    every_steps: int
    factor: float = 0.1
    warmup_steps: int = 0

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        if step < self.warmup_steps:
            return _warmed_up(self.learning_rate, step, self.warmup_steps)
        drops = (step - self.warmup_steps) // self.every_steps
        return self.learning_rate * float(self.factor) ** drops


@dataclass(frozen=True, slots=True)
class Cosine:
    """Half a cosine from the whole rate down to `final_fraction` of it.

    Loshchilov and Hutter, 2017, arXiv:1608.03983. `total_steps` counts the warm-up. From update
    `total_steps` on the rate stays at ``final_fraction * learning_rate``.

    Examples:
        >>> [round(Cosine(1.0, total_steps=4).rate(step), 3) for step in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    learning_rate: float
    total_steps: int
    final_fraction: float = 0.0
    warmup_steps: int = 0

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        if step < self.warmup_steps:
            return _warmed_up(self.learning_rate, step, self.warmup_steps)
        if step >= self.total_steps:
            return self.learning_rate * self.final_fraction
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        fraction = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * fraction)


def make_schedule(
    type: str,  # noqa: A002 -- the configuration's word.
    *,
    learning_rate: float,
    warmup_steps: int = 0,
    total_steps: int | None = None,
    final_fraction: float = 0.0,
    every_steps: int | None = None,
    factor: float = 0.1,
) -> Schedule:
    """The schedule a configuration names: ``constant``, ``step`` or ``cosine``.

    Args:
        type: The name.
        learning_rate: The whole rate, reached at the end of the warm-up.
        warmup_steps: Updates of the linear warm-up.
        total_steps: Updates of the run; needed by ``cosine``.
        final_fraction: For ``cosine``.
        every_steps: Needed by ``step``.
        factor: For ``step``.

    Raises:
        ConfigError: Another name, or a number the named schedule needs is missing.
    """
    if type == "constant":
        return Constant(learning_rate, warmup_steps)
    if type == "step":
        if every_steps is None or every_steps < 1:
            way_out = "set [schedule] every_steps"
            raise ConfigError(
                [f"schedule.every_steps is {every_steps}; must be 1 or more ({way_out})"]
            )
        return Step(learning_rate, every_steps, factor, warmup_steps)
    if type == "cosine":
        if total_steps is None:
            raise ConfigError(
                ["the cosine schedule needs an end; there is none (set [train] steps or epochs)"]
            )
        return Cosine(learning_rate, total_steps, final_fraction, warmup_steps)
    raise ConfigError(
        [f'schedule.type is {type!r}; must be "constant", "step" or "cosine" (set [schedule] type)']
    )


def _warmed_up(learning_rate: float, step: int, warmup_steps: int) -> float:
    if step + 1 >= warmup_steps:
        return learning_rate
    return learning_rate * (step + 1) / warmup_steps
