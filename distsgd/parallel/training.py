"""The state of a training run between two steps, and the one door through which it changes.

Fourth line of the step loop: ``weights = update(weights, root.mean())``. No I/O and no waiting
here: a root comes in, the weights move, and what is worth writing down comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsgd.errors import CheckpointError, DivergedError
from distsgd.optim.clip import clip_by_global_norm_inplace, squared_norm
from distsgd.optim.rules import UpdateRule
from distsgd.optim.schedules import Schedule
from distsgd.parallel.exchange.contract import Array
from distsgd.parallel.reduction import Root
from distsgd.parallel.tree import Sums
from distsgd.statistics.noise_scale import NoiseScale
from distsgd.store.history import HistoryRow

NO_SUMS = Sums(0, 0.0, 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class UpdateTask:
    """How a mean gradient becomes an update."""

    rule: UpdateRule
    schedule: Schedule
    clip_norm: float | None
    per_sample: bool
    history_every: int
    steps_per_epoch: int


class Training:
    """Weights, optimiser state and running sums; `weights` is the vector that the workers see.

    Attributes:
        step: Updates made so far.
        num_samples: Samples used so far.
        epoch_sums: Sums over the present epoch, or over the one that has just ended.
    """

    def __init__(self, task: UpdateTask, weights: Array) -> None:
        self._task = task
        self.weights = weights
        self.rule_state = task.rule.init(weights)
        self.step = 0
        self.num_samples = 0
        self.epoch_sums = NO_SUMS
        self._row_sums = NO_SUMS
        self._noise = NoiseScale()
        self._mean = np.zeros_like(weights)

    @property
    def epoch(self) -> float:
        """Passes over the rows so far."""
        return self.step / self._task.steps_per_epoch

    @property
    def train_loss(self) -> float | None:
        """Mean loss over the samples of the present epoch; None before its first step."""
        sums = self.epoch_sums
        return sums.loss_sum / sums.num_samples if sums.num_samples else None

    def apply(self, root: Root, seconds: float) -> HistoryRow | None:
        """Make one update by the mean of `root`.

        Args:
            root: The sum over all samples of the mini-batch.
            seconds: Time spent so far, for the record.

        Returns:
            A row of the history, on every `history_every`-th step.

        Raises:
            DivergedError: The loss is not finite; the weights are as they were.
        """
        task, sums = self._task, root.sums
        rate = task.schedule.rate(self.step)
        self._check_finite(sums, rate)
        mean = np.divide(
            root.gradient_sum, root.gradient_sum.dtype.type(sums.num_samples), out=self._mean
        )
        grad_norm = self._norm_and_clip(mean, sums)
        task.rule.update_inplace(self.weights, mean, state=self.rule_state, learning_rate=rate)
        at_start = self.step % task.steps_per_epoch == 0
        self.epoch_sums = sums if at_start else self.epoch_sums.joined(sums)
        self._row_sums = self._row_sums.joined(sums)
        self.step += 1
        self.num_samples += sums.num_samples
        if self.step % task.history_every:
            return None
        return self._row(rate, grad_norm, seconds)

    def _check_finite(self, sums: Sums, rate: float) -> None:
        if not math.isfinite(sums.loss_sum):
            raise DivergedError(
                self.step,
                f"the loss is {sums.loss_sum / sums.num_samples}, the learning rate {rate:g}; "
                "training cannot go on. "
                "Take a smaller [optimizer] learning_rate, a warm-up ([schedule] warmup_steps) "
                "or [optimizer] clip_norm",
            )

    def _norm_and_clip(self, mean: Array, sums: Sums) -> float | None:
        """The norm of the mean gradient where somebody wants it, clipped where it was asked for."""
        task = self._task
        if task.clip_norm is not None:
            norm = clip_by_global_norm_inplace(mean, task.clip_norm)
        elif task.per_sample:
            norm = math.sqrt(squared_norm(mean))
        else:
            return None
        if task.per_sample:
            self._noise.update(
                sums.num_samples, sums.squared_norm_sum / sums.num_samples, norm * norm
            )
        return norm

    def _row(self, rate: float, grad_norm: float | None, seconds: float) -> HistoryRow:
        sums, self._row_sums = self._row_sums, NO_SUMS
        per_sample = self._task.per_sample
        return HistoryRow(
            step=self.step,
            epoch=self.epoch,
            samples=self.num_samples,
            learning_rate=rate,
            train_loss=sums.loss_sum / sums.num_samples,
            grad_norm=grad_norm,
            mean_squared_norm=sums.squared_norm_sum / sums.num_samples if per_sample else None,
            max_squared_norm=sums.squared_norm_max if per_sample else None,
            noise_scale=self._noise.value if per_sample else None,
            seconds=seconds,
        )

    def state(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON values."""
        return {
            "step": self.step,
            "num_samples": self.num_samples,
            "epoch_sums": list(self.epoch_sums),
            "row_sums": list(self._row_sums),
            "noise": self._noise.state_dict(),
        }

    def restore(
        self, state: Mapping[str, Any], weights: Array, rule_state: Mapping[str, Array]
    ) -> None:
        """Go back to what :meth:`state` gave, in place: the workers keep seeing the same vector.

        Raises:
            CheckpointError: A number or an array is missing or has another shape.
        """
        try:
            if set(rule_state) != set(self.rule_state):
                raise ValueError(f"optimiser state {sorted(rule_state)}")  # noqa: TRY301
            self.step, self.num_samples = int(state["step"]), int(state["num_samples"])
            self.epoch_sums = Sums(*state["epoch_sums"])
            self._row_sums = Sums(*state["row_sums"])
            self._noise = NoiseScale.from_state(state["noise"])
            np.copyto(self.weights, weights)
            for name, array in self.rule_state.items():
                np.copyto(array, rule_state[name])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                "checkpoint",
                f"does not fit this run ({error}); use the configuration it was made with",
            ) from None
