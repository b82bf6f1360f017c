"""When a run is evaluated: a grid over its steps or its samples. Integers alone; no I/O here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class EvaluationGrid:
    """An evaluation is due after each step that reaches or passes a multiple of `every`.

    Nothing is remembered from one evaluation to the next, so a resume finds the same grid. Of
    samples it is the same for all batch sizes; one larger than `every` is due after each step.

    Attributes:
        every: 1 or more.
        unit: What is counted.

    >>> grid = EvaluationGrid(10, "samples")
    >>> [grid.is_due(step, 4 * step, of_step=4) for step in range(6)]
    [False, False, False, True, False, True]
    >>> str(grid)
    '10 samples'
    """

    every: int
    unit: Literal["steps", "samples"] = "steps"

    def __str__(self) -> str:
        return f"{self.every:,} {self.unit}"

    def is_due(self, step: int, num_samples: int, *, of_step: int) -> bool:
        """Is the run evaluated after `step` steps?

        Args:
            step: Updates made so far.
            num_samples: Samples used so far.
            of_step: How many of them the last step used.
        """
        after, last = (step, 1) if self.unit == "steps" else (num_samples, of_step)
        return step > 0 and (after - last) // self.every != after // self.every
