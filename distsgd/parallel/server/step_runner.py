"""One step of training, as the server makes it, and what observes the steps.

Hooks see each step, each end of an epoch, each evaluation. Nothing of that is made, and nothing
travels, unless it is observed. The server's own worker computes the view of a step from the same
rows and weights as the step itself, so it is the same for any number of workers.

Legend: B rows of the mini-batch in block order, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

from distsgd.base.arrays import Array
from distsgd.models.protocol import Model
from distsgd.nn.weights import in_short
from distsgd.parallel.messages import RequestKind, Sums
from distsgd.parallel.observer import Observer
from distsgd.parallel.pool.pool import Work, WorkerPool
from distsgd.parallel.server.loss_monitor import goes_somewhere, too_low
from distsgd.parallel.server.run_logger import RunLogger
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.training import Training
from distsgd.store.logs import EvaluationRow


@dataclass(frozen=True, slots=True, repr=False)
class StepView:
    """One step, before its update.

    Attributes:
        step: Updates made before it.
        weights: By parameter name; copies.
        predictions: ``[B, O]``, what the model says of each row of the mini-batch.
        deltas: ``[B, O]``, the gradient of each row's own loss by the output layer's output (by its
            weighted input where the loss brings the activation along): prediction - goal for
            "quadratic" and for the cross-entropies.
        targets: ``[B, O]`` numbers or ``[B]`` classes.
        loss: Mean over the rows.
    """

    step: int
    weights: dict[str, Array]
    predictions: Array
    deltas: Array
    targets: Array
    loss: float

    def __repr__(self) -> str:
        rows, outputs = self.predictions.shape[0], self.predictions.shape[1:]
        shape = "x".join(map(str, (rows, *outputs)))
        return (
            f"StepView(step={self.step}, loss={self.loss:.4g}, "
            f"weights=<{in_short(self.weights)}>, predictions=<{shape}>)"
        )


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """An epoch that has ended.

    Attributes:
        step: Updates made so far.
        epoch: Passes over the rows so far.
        train_loss: Mean over the rows of this epoch, each before the update of its step.
    """

    step: int
    epoch: int
    train_loss: float | None


Event: TypeAlias = StepView | EpochEnd | EvaluationRow
OnStep = Callable[[StepView], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHooks:
    """What is called with each event of the loop; an event that nothing observes is not made."""

    on_step: OnStep | None = None
    on_epoch_end: Callable[[EpochEnd], None] | None = None
    on_evaluate: Callable[[EvaluationRow], None] | None = None

    @property
    def events(self) -> tuple[str, ...]:
        """The names of those that are set."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    def notify(self, event: Event) -> None:
        """Call the one that observes such events, if any."""
        if isinstance(event, StepView):
            call: Callable[..., None] | None = self.on_step
        else:
            call = self.on_epoch_end if isinstance(event, EpochEnd) else self.on_evaluate
        if call is not None:
            call(event)


NO_HOOKS = EventHooks()


class CallbackError(Exception):
    """`error` came out of a callback that observed the loop; never leaves the server."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class StepRunner:
    """Makes the steps of a run and its evaluations, one by one; `on_step` sees each step."""

    def __init__(
        self,
        spec: ServerSpec,
        pool: WorkerPool,
        training: Training,
        *,
        on_step: OnStep | None,
        observer: Observer | None,
    ) -> None:
        self._spec, self._pool, self._training = spec, pool, training
        self._on_step, self._observer = on_step, observer
        self._before_last: Array | None = None

    def run_step(self, run_logger: RunLogger, seconds: Callable[[], float]) -> bool:
        """Make the next step and record it; False where the run was rolled back instead. Blocks.

        A rollback leaves `training.step` as it was: the same step is to be made again.

        Raises:
            DivergedError: The loss grows without bound.
        """
        sampler, pool, training = self._spec.worker.sampler, self._pool, self._training
        step, is_search = training.step, training.search_rule is not None
        if step + 1 == self._spec.total_steps:
            self._before_last = training.weights.copy()
        num_next = len(sampler.partition(step + 1).blocks)
        kind = RequestKind.LOSS if is_search else RequestKind.GRADIENT
        work = Work(kind, step, sampler.partition(step), num_next)
        root = pool.gather(work)
        self._notify(root.sums)
        if is_search:  # It asks for losses as often as it likes.
            # The rows of the next step are read ahead by now, and are kept until then.
            again = replace(work, num_next=0)
            row = training.apply_search(
                root.sums, lambda: pool.gather(again).sums.loss_sum, seconds
            )
        else:
            if self._observer is not None:
                self._observer.on_phase("before_update", step)
            row = training.apply(root, seconds())
        if training.step == step:
            return False
        run_logger.step_done(training, row)
        return True

    def evaluate(self) -> EvaluationRow:
        """Loss and accuracy on the held-out rows, of which there are some. Blocks."""
        spec, step, epoch = self._spec, self._training.step, self._training.epoch
        if self._observer is not None:
            self._observer.on_phase("during_evaluation", step)
        partition = spec.worker.sampler.blocking.evaluation(spec.num_test_rows)
        sums = self._pool.gather(Work(RequestKind.EVALUATE, step, partition)).sums
        count = sums.num_samples
        num_places = count * _places_of_a_row(spec.worker.model)
        accuracy = sums.correct / num_places if spec.worker.has_classes else None
        return EvaluationRow(step, epoch, sums.loss_sum / count, accuracy, count)

    def advice(self, first_weights: Callable[[], Array]) -> str:
        """What to say of a run that has come to its end; "" where it moved."""
        training = self._training
        # What a search rule moves by is no learning rate.
        is_search, has_fallen = training.search_rule, not training.loss_monitor.hardly_fell()
        if self._before_last is None or is_search is not None or has_fallen:
            return ""
        if not goes_somewhere(first_weights(), self._before_last, training.weights):
            return ""
        return too_low(training.loss_monitor, training.highest_rate)

    def _notify(self, sums: Sums) -> None:
        if self._on_step is None:
            return
        training, model = self._training, self._spec.worker.model
        seen = self._pool.view(training.step)
        weights = model.views(training.weights.copy())
        loss = sums.loss_sum / sums.num_samples
        view = StepView(training.step, weights, *seen, loss)
        try:
            self._on_step(view)
        except Exception as error:
            raise CallbackError(error) from error


def _places_of_a_row(model: Model) -> int:
    """How many classes a row has, each right or wrong; one-hot, they have an axis more."""
    shape = model.target_shape if model.target_kind == "class" else model.target_shape[:-1]
    return math.prod(shape)
