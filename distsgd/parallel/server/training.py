"""The state of a training run between two steps, and the one door through which it changes.

In the loop (`server.step_runner`), `training.apply` is this: a root comes in, the weights move by
its mean, and what is worth writing down comes out. The weights are walked in chunks, so that a step
touches main memory once. No I/O here; only a search rule waits, for the losses that it asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.errors import DivergedError
from distsgd.optim.clip import CHUNK_LENGTH, chunks, clip_factor, squared_norm
from distsgd.optim.search import LossProbe, SearchRule
from distsgd.parallel.messages import Sums
from distsgd.parallel.pool.reduction import Root
from distsgd.parallel.server.loss_monitor import LossMonitor, grown, trained_on, why_diverged
from distsgd.parallel.server.rollback import MOST_HALVINGS, Rollback
from distsgd.parallel.server.rule_state import initial_state
from distsgd.parallel.server.saved_state import check_state, does_not_fit, number, plain
from distsgd.parallel.server.spec import UpdateSpec
from distsgd.statistics.noise_scale import NoiseScale
from distsgd.store.logs import HistoryRow

NO_SUMS = Sums(0, 0.0, 0, 0.0, 0.0)


class Training:
    """Weights, optimiser state and running sums; `weights` is the vector that the workers see.

    Attributes:
        step: Updates made so far.
        num_samples: Samples used so far.
        search_rule: The rule, where it is one that asks for losses only.
        rule_state: What the rule keeps between two steps, by name.
        epoch_sums: Sums over the present epoch, or over the one that has just ended.
        gradient_converged: Was the norm of the last mean gradient below that which ends training?
        loss_monitor: Whether the loss grows, falls or stands still.
        divergence: What to say of a run that diverged and trains on; "" before that.
    """

    def __init__(
        self, spec: UpdateSpec, weights: Array, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._spec = spec
        self._say = say
        self.weights = weights
        # Told apart once: whether something keeps a protocol takes long to find out, in each step.
        rule = spec.rule
        self.search_rule = rule if isinstance(rule, SearchRule) else None
        self._update_rule = None if isinstance(rule, SearchRule) else rule
        self.rule_state = initial_state(spec.rule, weights)
        # An array, so that it can be rolled back together with the state.
        self._num_updates = np.zeros(1, np.int64)
        self._mean = np.zeros(min(CHUNK_LENGTH, weights.size), weights.dtype)  # Of one chunk.
        self.step = 0
        self.num_samples = 0
        self.epoch_sums = NO_SUMS
        self._row_sums = NO_SUMS
        self._noise = NoiseScale()
        self.gradient_converged = False
        self.loss_monitor = LossMonitor.of(spec.steps_per_epoch)
        self._rollback: Rollback | None = None
        self.divergence = ""

    @property
    def epoch(self) -> float:
        """Passes over the rows so far."""
        return self.step / self._spec.steps_per_epoch

    @property
    def train_loss(self) -> float | None:
        """Mean loss over the samples of the present epoch; None before its first step."""
        sums = self.epoch_sums
        return sums.loss_sum / sums.num_samples if sums.num_samples else None

    @property
    def trains_on(self) -> bool:
        """Does the run continue whatever its loss and its weights are?"""
        return self._spec.on_divergence == "continue"

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self._rate(self._spec.schedule.rate(self.step))

    @property
    def highest_rate(self) -> float:
        """The same at the top of its schedule: what a configuration says."""
        return self._rate(self._spec.schedule.peak_learning_rate)

    def _rate(self, scheduled: float) -> float:
        if self.search_rule is not None:
            return self.search_rule.rate(scheduled)
        return scheduled * self._rollback.factor if self._rollback else scheduled

    def begin(self) -> None:
        """The weights are those of the beginning: they are the first to go back to."""
        if self._spec.on_divergence == "halve_lr":
            live = {"weights": self.weights, "num_updates": self._num_updates}
            # A rule names its arrays as it likes, also "weights".
            live |= {f"state.{name}": array for name, array in self.rule_state.items()}
            self._rollback = Rollback(self.loss_monitor, live)

    def apply(self, root: Root, seconds: float) -> HistoryRow | None:
        """Make one update by the mean of `root`; or, where the run has diverged, roll back.

        A rollback leaves `step` as it was: the same step is to be made again.

        Args:
            root: The sum over all samples of the mini-batch.
            seconds: Time spent so far, for the record.

        Returns:
            A row of the history, on every `history_every`-th step.

        Raises:
            DivergedError: The loss grows without bound, and there is no rollback; the weights are
                as they were.
        """
        spec, sums, rate = self._spec, root.sums, self.learning_rate
        count = sums.num_samples
        loss = sums.loss_sum / count if math.isfinite(root.squared_norm) else math.nan
        if self._rolls_back(loss, rate):
            return None
        if spec.per_sample:
            # Per-sample norms are over all weights, the frozen too, so what they are held against
            # is as well.
            squared = root.squared_norm / count**2
            self._noise.update(count, sums.squared_norm_sum / count, squared)
        gradient_sum, squared_norm_of_sum = root.gradient_sum, root.squared_norm
        if spec.frozen:
            gradient_sum = gradient_sum.copy()
            kept = spec.frozen.take_out_inplace(self.weights, gradient_sum)
            squared_norm_of_sum = squared_norm(gradient_sum)
        norm = math.sqrt(squared_norm_of_sum) / count
        self.gradient_converged = (
            spec.stop_gradient_norm is not None and norm < spec.stop_gradient_norm
        )
        factor = 1.0 if spec.clip_norm is None else clip_factor(norm, spec.clip_norm)
        self._move(gradient_sum, count, factor=factor, rate=rate)
        if spec.frozen:
            spec.frozen.put_back_inplace(self.weights, kept)
        return self._step_made(sums, rate, norm, seconds)

    def _move(self, gradient_sum: Array, count: int, *, factor: float, rate: float) -> None:
        """Move the weights by the mean gradient times `factor`, which is what clipping left."""
        rule, weights, num_updates = self._update_rule, self.weights, self._num_updates
        assert rule is not None
        scalar = weights.dtype.type
        # The mean over a power of two is the same bits as a product, which is twice as fast.
        divide, by = (
            (np.divide, scalar(count)) if count & (count - 1) else (np.multiply, scalar(1 / count))
        )
        for chunk in chunks(weights.size):
            sum_of_chunk = gradient_sum[chunk]
            mean = divide(sum_of_chunk, by, out=self._mean[: len(sum_of_chunk)])
            if factor != 1.0:
                mean *= scalar(factor)
            rule.update_inplace(
                weights[chunk],
                mean,
                state={name: array[chunk] for name, array in self.rule_state.items()},
                learning_rate=rate,
                num_updates=int(num_updates[0]),
            )
        num_updates += 1

    def apply_search(
        self, before: Sums, measure: Callable[[], float], seconds: Callable[[], float]
    ) -> HistoryRow | None:
        """Make one update by the search rule. Blocks while losses are measured.

        Args:
            before: Losses of the mini-batch with the weights as they are.
            measure: The sum of the losses with the weights as they are when it is called.
            seconds: Time spent so far, for the record.

        Returns:
            As :meth:`apply`.

        Raises:
            DivergedError: As :meth:`apply`.
        """
        assert self.search_rule is not None
        rate, frozen = self.learning_rate, self._spec.frozen
        self._rolls_back(before.loss_sum / before.num_samples, rate)
        kept = frozen.values(self.weights) if frozen else []
        self.search_rule.search_inplace(
            self.weights,
            LossProbe(measure, before.loss_sum, before.num_samples),
            step=self.step,
            free=self._free,
            state=self.rule_state,
            learning_rate=rate,
        )
        if frozen:
            frozen.put_back_inplace(self.weights, kept)
        return self._step_made(before, rate, None, seconds())

    @cached_property
    def _free(self) -> NDArray[np.int64]:
        """Places of the weights that are not frozen."""
        places, frozen = np.arange(self.weights.size), self._spec.frozen
        return np.setdiff1d(places, frozen.places) if frozen else places

    def _rolls_back(self, loss: float, rate: float) -> bool:
        """Check the mean loss of the step to be made; True where the run was rolled back."""
        rollback = self._rollback
        has_diverged = self.loss_monitor.has_diverged(loss)
        if self.trains_on:
            if has_diverged and not self.divergence:
                self.divergence = trained_on(loss, rate, step=self.step)
                self._say(self.divergence)
            return False
        if rollback is not None:
            rollback.before_step()
        if not has_diverged and (rollback is None or not rollback.fails_trial(loss)):
            return False
        # Before the first update, no rate would have given another loss.
        is_lost = rollback is None or rollback.halvings >= MOST_HALVINGS
        if is_lost or (self.step == 0 and has_diverged):
            advice = self._spec.output_advice
            raise DivergedError(
                self.step, why_diverged(loss, rate, step=self.step, output_advice=advice)
            )
        assert rollback is not None
        rollback.go_back(on_trial=has_diverged)
        what = grown(loss) if has_diverged else "does not fall"
        self._say(
            f"step {self.step}: the loss {what} at a learning rate of {rate:g}, which is too high; "
            f"back to the last good weights, on with {self.learning_rate:g}"
        )
        return True

    def _step_made(
        self, sums: Sums, rate: float, grad_norm: float | None, seconds: float
    ) -> HistoryRow | None:
        spec = self._spec
        window_mean = self.loss_monitor.note(sums.loss_sum / sums.num_samples)
        if self._rollback and window_mean is not None:
            self._rollback.after_window(window_mean)
        at_start = self.step % spec.steps_per_epoch == 0
        self.epoch_sums = sums if at_start else self.epoch_sums.joined(sums)
        self._row_sums = self._row_sums.joined(sums)
        self.step += 1
        self.num_samples += sums.num_samples
        if self.step % spec.history_every:
            return None
        return self._row(rate, grad_norm, seconds)

    def _row(self, rate: float, grad_norm: float | None, seconds: float) -> HistoryRow:
        sums, self._row_sums = self._row_sums, NO_SUMS
        per_sample, factor = self._spec.per_sample, self._spec.squared_error_factor
        train_loss = sums.loss_sum / sums.num_samples
        return HistoryRow(
            step=self.step,
            epoch=self.epoch,
            samples=self.num_samples,
            learning_rate=rate,
            train_loss=train_loss,
            squared_error=None if factor is None else factor * train_loss,
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
            "num_updates": int(self._num_updates[0]),
            "epoch_sums": [plain(value) for value in self.epoch_sums],
            "row_sums": [plain(value) for value in self._row_sums],
            "noise": self._noise.state_dict(),
            "gradient_converged": self.gradient_converged,
            "loss_monitor": {
                name: plain(value) for name, value in self.loss_monitor.state().items()
            },
            "divergence": self.divergence,
            "rollback": self._rollback.state() if self._rollback else None,
        }

    def arrays(self) -> dict[str, Mapping[str, Array]]:
        """The optimiser's state, and what the run would go back to, in groups."""
        groups: dict[str, Mapping[str, Array]] = {"optimizer": self.rule_state}
        return groups | ({"rollback": self._rollback.arrays()} if self._rollback else {})

    def restore(
        self,
        state: Mapping[str, Any],
        weights: Array,
        arrays: Mapping[str, Mapping[str, Array]],
    ) -> None:
        """Go back to what :meth:`state` and :meth:`arrays` gave.

        In place: the workers keep seeing the same vector.

        Raises:
            CheckpointError: A number or an array is missing or has another shape.
        """
        self.begin()  # So that there is a way back to be held against.
        check_state(state, like=self.state())
        try:
            rule_state = arrays["optimizer"]
            if set(rule_state) != set(self.rule_state):
                raise ValueError(f"optimiser state {sorted(rule_state)}")  # noqa: TRY301
            self.step, self.num_samples = int(state["step"]), int(state["num_samples"])
            self._num_updates[0] = state["num_updates"]
            self.epoch_sums = Sums(*map(number, state["epoch_sums"]))
            self._row_sums = Sums(*map(number, state["row_sums"]))
            self._noise = NoiseScale.from_state(state["noise"])
            self.gradient_converged = bool(state["gradient_converged"])
            self.loss_monitor = LossMonitor(
                **{name: number(value) for name, value in state["loss_monitor"].items()}
            )
            self.divergence = str(state["divergence"])
            np.copyto(self.weights, weights)
            for name, array in self.rule_state.items():
                np.copyto(array, rule_state[name])
            self.begin()
            if self._rollback:
                self._rollback.restore(state["rollback"], arrays["rollback"])
        except (KeyError, TypeError, ValueError) as error:
            raise does_not_fit(error) from None
