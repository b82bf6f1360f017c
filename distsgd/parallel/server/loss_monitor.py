"""The loss of a run, watched: does it grow without bound, or hardly move? And the way back.

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

*Rollback* (``[train] on_divergence = "halve_lr"``): at the beginning of every window the weights
and the optimiser's state are copied; at its end the copy becomes the *good* one where the mean loss
of the window was the lowest so far. A run that diverges at a step goes back to the good copy, its
rate is halved, and the same step is made again. After that it is on trial for `TRIAL_STEPS` steps
(whole windows): where the mean loss of none of them is lower by a thousandth than that of the good
copy's own window, the rate is still too high (a weight can swing around its goal for ever without
growing), and the run goes back and halves it once more, this time without a trial. All of it
depends on losses only, and is part of what a checkpoint keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from distsgd.base.arrays import Array
from distsgd.optim.clip import squared_norm

GROWTH = 1e6
LONGEST_WINDOW = 1000
FEWEST_STEPS = 10
LEAST_FALL = 0.01
MOST_HALVINGS = 64
TRIAL_STEPS = 10
LEAST_FALL_IN_TRIAL = 0.001

Arrays = dict[str, Array]

TOO_HIGH = (
    "Take a smaller [optimizer] learning_rate, a warm-up ([schedule] warmup_steps) or [optimizer] "
    'clip_norm, or set [train] on_divergence = "halve_lr" (or "continue", to watch it)'
)


@dataclass(slots=True)
class LossMonitor:
    """What is remembered of the losses so far.

    Attributes:
        window: StepRunner of a window.
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


class Rollback:
    """The way back of one run.

    Args:
        loss_monitor: The run's; it is put back as well.
        live: Weights and optimiser state that training changes, by name.

    Attributes:
        halvings: How often the rate was halved.
    """

    def __init__(self, loss_monitor: LossMonitor, live: Arrays) -> None:
        self._loss_monitor, self._live = loss_monitor, live
        self._good, self._start = _copy(live), _copy(live)
        self._good_mean = math.inf
        self.halvings = 0
        self._trial_left = 0  # Windows.

    @property
    def factor(self) -> float:
        """What the schedule's rate is multiplied by."""
        return 0.5**self.halvings

    def before_step(self) -> None:
        """Copy what is live where a window begins."""
        if self._loss_monitor.num_steps % self._loss_monitor.window == 0:
            _copy_into(self._start, self._live)

    def fails_trial(self, loss: float) -> bool:
        """Would a window that ends with a step of `loss` end the trial without success?"""
        loss_monitor = self._loss_monitor
        if not self._trial_left or (loss_monitor.num_steps + 1) % loss_monitor.window:
            return False
        is_lower = (loss_monitor.loss_sum + loss) / loss_monitor.window < (
            1.0 - LEAST_FALL_IN_TRIAL
        ) * self._good_mean
        return not is_lower and self._trial_left == 1

    def after_window(self, mean: float) -> None:
        """A window of mean loss `mean` has ended."""
        if self._trial_left:
            is_lower = mean < (1.0 - LEAST_FALL_IN_TRIAL) * self._good_mean
            self._trial_left = 0 if is_lower else self._trial_left - 1
        if mean <= self._good_mean:
            self._good_mean = mean
            self._good, self._start = self._start, self._good

    def go_back(self, *, on_trial: bool) -> None:
        """Put what is live back to the good copy and halve the rate."""
        _copy_into(self._live, self._good)
        loss_monitor = self._loss_monitor
        loss_monitor.num_steps -= loss_monitor.num_steps % loss_monitor.window
        loss_monitor.loss_sum = 0.0
        if loss_monitor.first_mean is None:
            loss_monitor.reference = 0.0
        self.halvings += 1
        windows = -(-TRIAL_STEPS // loss_monitor.window)
        self._trial_left = windows if on_trial and math.isfinite(self._good_mean) else 0

    def state(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON values."""
        good = self._good_mean if math.isfinite(self._good_mean) else None
        return {"halvings": self.halvings, "good_mean": good, "trial_left": self._trial_left}

    def arrays(self) -> Arrays:
        """What a checkpoint keeps: both copies."""
        return {f"good.{name}": array for name, array in self._good.items()} | {
            f"start.{name}": array for name, array in self._start.items()
        }

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Back to what :meth:`state` and :meth:`arrays` gave; KeyError where some is missing."""
        good = state["good_mean"]
        self._good_mean = math.inf if good is None else float(good)
        self.halvings, self._trial_left = int(state["halvings"]), int(state["trial_left"])
        for prefix, copies in (("good", self._good), ("start", self._start)):
            for name, array in copies.items():
                np.copyto(array, arrays[f"{prefix}.{name}"])


def _copy(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def _copy_into(to: Arrays, arrays: Arrays) -> None:
    for name, array in arrays.items():
        np.copyto(to[name], array)
