"""One step of training, as the server makes it: what is asked of the workers, what becomes of it.

work = sampler.partition(step)   how many rows, cut into blocks
root = pool.gather(work)         gradient sums; or losses alone, for a search rule
row  = training.apply(root)      the mean, the update

"""

from __future__ import annotations

from collections.abc import Callable

from distsgd.base.arrays import Array
from distsgd.parallel.messages import RequestKind, Sums
from distsgd.parallel.observer import Observer
from distsgd.parallel.pool.pool import Work, WorkerPool
from distsgd.parallel.server.loss_monitor import goes_somewhere, too_low
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_view import CallbackError, OnStep, StepView
from distsgd.parallel.server.training import Training
from distsgd.store.logs import HistoryRow


class StepRunner:
    """Makes the steps of a run, one after the other; `on_step` sees each of them."""

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
        self._sampler = spec.worker.sampler
        self._before_last: Array | None = None

    def run_step(self, seconds: Callable[[], float]) -> HistoryRow | None:
        """Make the next step; or roll back, which leaves `training.step` as it was. Blocks.

        Raises:
            DivergedError: The loss grows without bound.
        """
        training = self._training
        if training.step + 1 == self._spec.total_steps:
            self._before_last = training.weights.copy()
        if training.search_rule is not None:
            return self._search(seconds)
        root = self._pool.gather(self._work(RequestKind.GRADIENT))
        self._notify(root.sums)
        if self._observer is not None:
            self._observer.on_phase("before_update", training.step)
        return training.apply(root, seconds())

    def advice(self, first_weights: Callable[[], Array]) -> str:
        """What to say of a run that has come to its end; "" where it moved."""
        training = self._training
        if self._before_last is None or not training.loss_monitor.hardly_fell():
            return ""
        if training.search_rule is not None:  # What it moves by is no learning rate.
            return ""
        if not goes_somewhere(first_weights(), self._before_last, training.weights):
            return ""
        return too_low(training.loss_monitor, training.highest_rate)

    def _work(self, kind: RequestKind) -> Work:
        """All blocks of the present step."""
        step = self._training.step
        num_next = len(self._sampler.partition(step + 1).blocks)
        return Work(kind, step, self._sampler.partition(step), num_next)

    def _search(self, seconds: Callable[[], float]) -> HistoryRow | None:
        """A step of a rule that asks for losses only, as often as it likes."""
        before = self._losses()
        self._notify(before)
        return self._training.apply_search(before, lambda: self._losses().loss_sum, seconds)

    def _losses(self) -> Sums:
        """Losses of the present mini-batch with the weights as they are."""
        return self._pool.gather(self._work(RequestKind.LOSS)).sums

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
