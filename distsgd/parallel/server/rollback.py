"""The way back of a run that diverges: to weights that were good, with half the rate.

No I/O here.

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
from typing import Any, Literal

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.server.loss_monitor import LossMonitor

MOST_HALVINGS = 64
TRIAL_STEPS = 10
LEAST_FALL_IN_TRIAL = 0.001

Arrays = dict[str, Array]
OnDivergence = Literal["stop", "halve_lr", "continue"]  # What becomes of a run that diverges.


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
