"""One step of training, as the server makes it: what is asked of the workers, what becomes of it.

    work = sampler.partition(step)   how many rows, cut into blocks
    root = pool.gather(work)         gradient sums; or losses alone, for a rule without derivatives
    row  = training.apply(root)      the mean, the update

Whoever watches is shown each step before its update; where nobody watches, that is one comparison.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distsgd.base.arrays import Array
from distsgd.lab.faults.injection import ServerFaults
from distsgd.lessons.coordinate_search import CoordinateSearch
from distsgd.parallel.messages import RequestKind
from distsgd.parallel.pool.pool import Work, WorkerPool
from distsgd.parallel.server.loss_monitor import goes_somewhere, too_low
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_view import CallbackError, OnStep, StepView
from distsgd.parallel.server.training import Training
from distsgd.parallel.tree import Sums
from distsgd.store.history import HistoryRow


class StepRunner:
    """Makes the steps of a run, one after the other; `on_step` sees each of them."""

    def __init__(
        self, spec: ServerSpec, pool: WorkerPool, training: Training, on_step: OnStep | None
    ) -> None:
        self._spec, self._pool, self._training = spec, pool, training
        self._on_step = on_step
        self._sampler = spec.worker.sampler
        self.faults: ServerFaults | None = None
        self._before_last: Array | None = None
        frozen = spec.update.frozen
        places = np.arange(spec.worker.model.num_parameters)
        self._free = np.setdiff1d(places, frozen.places) if frozen else places

    def make(self, seconds: Callable[[], float]) -> HistoryRow | None:
        """Make the next step; or go back, which leaves `training.step` as it was. Blocks.

        Raises:
            DivergedError: The loss grows without bound.
            CallbackError: Whoever watches has raised an error; the step was not made.
            ClusterError: A worker did not answer, or something that cannot be.
        """
        training = self._training
        if training.step + 1 == self._spec.total_steps:
            self._before_last = training.weights.copy()
        if isinstance(self._spec.update.rule, CoordinateSearch):
            return self._try(self._spec.update.rule, seconds)
        root = self._pool.gather(self._work(RequestKind.GRADIENT))
        self._notify(root.sums)
        if self.faults is not None:
            self.faults("before_apply", training.step)
        return training.apply(root, seconds())

    def advice(self, first_weights: Callable[[], Array]) -> str:
        """What to say of a run that has come to its end; "" where it moved."""
        training = self._training
        if self._before_last is None or not training.loss_monitor.hardly_fell():
            return ""
        if isinstance(self._spec.update.rule, CoordinateSearch):
            return ""
        if not goes_somewhere(first_weights(), self._before_last, training.weights):
            return ""
        return too_low(training.loss_monitor, training.highest_rate)

    def _work(self, kind: RequestKind, *, is_last: bool = True) -> Work:
        """All blocks of the present step; the next step's, if this is the last that is asked."""
        step = self._training.step
        partition = self._sampler.partition(step)
        if not is_last:
            return Work(kind, step, partition)
        return Work(kind, step, partition, len(self._sampler.partition(step + 1).blocks))

    def _try(self, rule: CoordinateSearch, seconds: Callable[[], float]) -> HistoryRow | None:
        """Hot and cold: losses as it is, with one weight a step higher, and a step lower."""
        training, weights = self._training, self._training.weights
        here = self._pool.gather(self._work(RequestKind.LOSS, is_last=False)).sums
        self._notify(here)
        place = int(self._free[training.step % len(self._free)])
        weight = weights[place]
        try:
            weights[place] = rule.up(weight)
            up = self._pool.gather(self._work(RequestKind.LOSS, is_last=False)).sums
            weights[place] = rule.down(weight)
            down = self._pool.gather(self._work(RequestKind.LOSS)).sums
        finally:
            weights[place] = weight
        moved = rule.moved(weight, up_loss=up.loss_sum, down_loss=down.loss_sum)
        return training.apply_trial(place, moved, here, seconds())

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
