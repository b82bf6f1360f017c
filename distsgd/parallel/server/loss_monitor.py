"""The loss of a run, watched: does it grow without bound, or hardly move?

No I/O here.

All rules are functions of the losses of the steps, so that they give the same answer for any number
of workers and after any resume. They speak of windows: a window is an epoch, or `LONGEST_WINDOW`
steps where an epoch is longer.

*Diverged*: the mean loss of a step is no finite number, or it is more than `GROWTH` times the
largest of the first window, in which every row was seen once. A run whose error grows nine-fold a
step on one row is found out at its eighth step.

*Hardly moves*, at the end of a run of at least `FEWEST_STEPS` steps: the mean loss of its last
window is not lower by a hundredth than that of its first, and the weights are not just swinging:
they came farther than two of their last steps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from distsgd.base.arrays import Array
from distsgd.optim.clip import squared_norm

GROWTH = 1e6
LONGEST_WINDOW = 1000
FEWEST_STEPS = 10
LEAST_FALL = 0.01

TOO_HIGH = (
    "Take a smaller [optimizer] learning_rate, a warm-up ([schedule] warmup_steps) or [optimizer] "
    'clip_norm, or set [train] on_divergence = "halve_lr" (or "continue", to watch it)'
)


@dataclass(slots=True)
class LossMonitor:
    """What is remembered of the losses so far.

    Attributes:
        window: Steps of a window.
        num_steps: Losses seen.
        reference: The largest mean loss of a step in the first window.
        first_mean: Mean of the first window; None before its end.
        last_mean: Mean of the last whole window.
        loss_sum: Over the steps of the present window.
    """

    window: int
    num_steps: int = 0
    reference: float = 0.0
    first_mean: float | None = None
    last_mean: float | None = None
    loss_sum: float = 0.0

    @classmethod
    def of(cls, steps_per_epoch: int) -> Self:
        """At the beginning of a run."""
        return cls(min(steps_per_epoch, LONGEST_WINDOW))

    def has_diverged(self, loss: float) -> bool:
        """Does a step of mean loss `loss` show that the run grows without bound?"""
        if not math.isfinite(loss):
            return True
        return self.first_mean is not None and 0.0 < GROWTH * self.reference < loss

    def note(self, loss: float) -> float | None:
        """A step of mean loss `loss` is made; the mean of its window where that ends with it."""
        self.num_steps += 1
        self.loss_sum += loss
        if self.first_mean is None:
            self.reference = max(self.reference, loss)
        if self.num_steps % self.window:
            return None
        self.last_mean = mean = self.loss_sum / self.window
        self.loss_sum = 0.0
        if self.first_mean is None:
            self.first_mean = mean
        return mean

    def hardly_fell(self) -> bool:
        """Is the loss at the end not lower than at the beginning by a hundredth?"""
        if self.num_steps < max(FEWEST_STEPS, 2 * self.window):
            return False
        assert self.first_mean is not None
        assert self.last_mean is not None
        return self.last_mean > (1.0 - LEAST_FALL) * self.first_mean

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def grown(loss: float) -> str:
    """What became of a mean loss `loss` of a run that diverges.

    >>> grown(1.5e9), grown(float("inf")), grown(float("nan"))
    ('has grown to 1.5e+09', 'is infinite', 'is not a number')
    """
    if math.isnan(loss):
        return "is not a number"
    return f"has grown to {loss:.4g}" if math.isfinite(loss) else "is infinite"


def why_diverged(loss: float, rate: float, *, step: int, output_advice: str = "") -> str:
    """Advice for a run that has diverged, at `step` of mean loss `loss`.

    A high learning rate is to blame only where there was an update, and where the outputs are in
    the domain of the loss.

    Args:
        loss: Not a number too where the gradient is none.
        rate: Learning rate of the step.
        step: Updates made before.
        output_advice: What to say where outputs can leave that domain; "" where they cannot.
    """
    if math.isnan(loss) and output_advice:
        return f"the loss is not a number; {output_advice}"
    if step == 0:
        return (
            f"the loss or its gradient {grown(loss)} before the first update, so that no learning "
            "rate is to blame. Look for too large numbers in the rows and labels (scale them, or "
            'set [data] standardise, or [train] dtype = "float64") and in the initial weights'
        )
    return (
        f"the loss {grown(loss)} at a learning rate of {rate:g}, which is too high; training "
        f"cannot continue. {TOO_HIGH}"
    )


def trained_on(loss: float, rate: float, *, step: int) -> str:
    """What is said of a run that diverged at `step` and trains on, as it was told to."""
    return (
        f"diverged at step {step}: the loss {grown(loss)} at a learning rate of {rate:g}; training "
        'continues all the same ([train] on_divergence = "continue")'
    )


def too_low(loss_monitor: LossMonitor, rate: float) -> str:
    """Advice for a run that hardly moved."""
    return (
        f"the loss hardly moved: {loss_monitor.first_mean:.6g} at the beginning, "
        f"{loss_monitor.last_mean:.6g} at the end; the learning rate {rate:g} is probably too low "
        "(take a larger [optimizer] learning_rate)"
    )


def goes_somewhere(first: Array, before: Array, after: Array) -> bool:
    """Did the weights come farther than two of their last steps, or nowhere at all?

    Args:
        first: At the beginning of the run.
        before: Before its last step.
        after: At its end.
    """
    way, last = (math.sqrt(squared_norm(after - other)) for other in (first, before))
    return way >= 2.0 * last and bool(np.isfinite(way))
