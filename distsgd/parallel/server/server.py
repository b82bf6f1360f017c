"""The parameter server: it holds the weights and makes step after step (`server.step_runner`).

Workers compute, the server averages and updates. A plain class: it becomes an actor in `launch`, or
runs in a thread of the caller's process. `train` blocks; all other methods may be called meanwhile,
from another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import DivergedError
from distsgd.parallel.observer import ObserverContext, make_observer
from distsgd.parallel.pool.crash_loop import CrashLoopGuard, namer
from distsgd.parallel.pool.pool import PoolSettings, WorkerPool
from distsgd.parallel.runner import Runner
from distsgd.parallel.server.ending import ended_by, evaluation_is_due, unmet
from distsgd.parallel.server.loss_monitor import TOO_HIGH
from distsgd.parallel.server.message_log import MessageLog
from distsgd.parallel.server.report import finite
from distsgd.parallel.server.run_logger import RunLogger, ended_before
from distsgd.parallel.server.spec import Ending, Outcome, Phase, ServerSpec, Status, StoppedBy
from distsgd.parallel.server.step_runner import (
    NO_HOOKS,
    CallbackError,
    EpochEnd,
    Event,
    EventHooks,
    StepRunner,
)
from distsgd.parallel.server.training import Training
from distsgd.parallel.transport import open_transport
from distsgd.parallel.transport.interface import Address, BufferLayout
from distsgd.parallel.tree import most_nodes
from distsgd.parallel.worker import WorkerSpec
from distsgd.store.logs import weights_digest
from distsgd.store.run_directory import RunDirectory

JOIN_TIMEOUT_S = 120.0
LOCK_TIMEOUT_S = 30.0  # A killed driver's server outlives it by about 1.5 s.


class ParameterServer:
    """One run's server.

    Args:
        spec: The run.
        make_runner: Makes the runner with which it can compute by itself.
        incarnation: How often the run's server was started anew.
        hooks: Called with the events of the loop, in the thread that trains.
    """

    def __init__(
        self,
        spec: ServerSpec,
        make_runner: Callable[[WorkerSpec], Runner],
        *,
        incarnation: int = 0,
        hooks: EventHooks = NO_HOOKS,
    ) -> None:
        self._born_s = monotonic()
        self._spec = spec
        self._incarnation = incarnation
        self._hooks = hooks
        self._messages = MessageLog()
        sampler, model, pool = spec.worker.sampler, spec.worker.model, spec.pool
        slots = most_nodes(sampler.most_leaves)
        layout = BufferLayout(model.num_parameters, slots, spec.worker.dtype)
        self._transport = (
            open_transport(
                pool.transport, layout, secret=pool.secret, incarnation=incarnation, host=pool.host
            )
            if pool.num_workers
            else None
        )
        self._crash_loop = CrashLoopGuard(namer(spec.worker))
        self._pool = WorkerPool(
            layout,
            make_runner(spec.worker),
            transport=self._transport,
            settings=PoolSettings(pool.assignment, pool.step_timeout_s, incarnation, pool.spin),
            crash_loop=self._crash_loop,
            say=self._messages.add,
        )
        self._training = Training(spec.update, self._pool.weights, say=self._messages.add)
        self._observer = None
        if spec.observer is not None:
            context = ObserverContext(
                role="server",
                run=spec.record.directory,
                members=lambda: self._pool.members,
                process_of=self._pool.process_of,
            )
            self._observer = make_observer(spec.observer, context)
        self._step_runner = StepRunner(
            spec, self._pool, self._training, on_step=hooks.on_step, observer=self._observer
        )
        self._run_logger: RunLogger | None = None
        self._stop = threading.Event()
        self._phase: Phase = "starting"
        self._started_at = 0.0
        self._started_samples = 0
        self._seconds_before = 0.0

    def address(self) -> Address:
        """Where workers connect."""
        assert self._transport is not None
        return self._transport.address

    def request_stop(self) -> None:
        """End after the present step, with a checkpoint."""
        self._stop.set()

    def expect(self, num_workers: int) -> None:
        """There will be `num_workers` workers, and no more."""
        self._pool.expect(num_workers)

    def note(self, message: str) -> None:
        """Say `message` among this server's own."""
        self._messages.add(message)

    def status(self, known: int = 0) -> Status:
        """Where the run is, with the messages after the first `known`; answers at once."""
        training = self._training
        num_messages, messages = self._messages.after(known)
        evaluation = self._run_logger.evaluation if self._run_logger else None
        return Status(
            self._phase,
            training.step,
            training.epoch,
            training.train_loss,
            evaluation.test_loss if evaluation else None,
            evaluation.test_accuracy if evaluation else None,
            training.num_samples - self._started_samples,
            monotonic() - self._started_at if self._started_at else 0.0,
            len(self._pool.members),
            self._incarnation,
            replace(self._pool.phases),
            self._pool.computed_by,
            self._pool.is_settled,
            num_messages,
            messages,
            *self._pool.membership,
        )

    def train(self) -> Outcome:
        """Train from the last durable state to the end, or until asked to stop. Blocks.

        How it ended is written down before the run is let go of: a process that waited for the
        run sees that there is nothing left to do.

        Raises:
            RunError: Another process has the run.
            CheckpointError: Nothing that was saved can be used.
            ClusterError: Workers do not come, do not answer, or compute other bits.
            StorageError: Object storage does not give the run, or does not take its end.
            Exception: What an observer raised; a checkpoint was written before.
        """
        spec, record, least = self._spec, self._spec.record, self._spec.pool.least_workers
        try:
            take_over = record.take_over and not self._incarnation  # Once, not after each death.
            with RunDirectory.held(
                record.run, LOCK_TIMEOUT_S, take_over=take_over, session=record.session
            ) as run:
                if (ended := ended_before(run)) is not None:
                    self.note(f"{run.place} is finished; nothing to do")
                    return ended
                for doubt in run.doubts():
                    self.note(doubt)
                self._crash_loop.remember_in(run.deaths_place)
                logger = RunLogger(run, record, spec.worker.model, say=self._messages.add)
                self._run_logger = logger
                run.result_path.unlink(missing_ok=True)  # How an earlier session of it ended.
                self._begin(logger)
                if not self._incarnation:  # After a death it is the server that is waited for.
                    count = (spec.pool.num_workers or 0) if least is None else least
                    self._pool.wait_for_members(count, JOIN_TIMEOUT_S)
                else:
                    back_s = monotonic() - self._born_s
                    self.note(f"the server is back {back_s:.1f} s after its first line")
                outcome = self._train(logger)
                if report := logger.write_result(outcome, self._observer):
                    self.note(report)
                return outcome
        finally:
            self._phase = "ended"
            self._pool.close()

    def _begin(self, run_logger: RunLogger) -> None:
        """Take the weights from the newest checkpoint, or make the first ones."""
        training = self._training
        seconds = run_logger.resume(training, on_message=self._messages.add)
        if seconds is not None:
            self._seconds_before = seconds
            self._messages.add(f"continuing after step {training.step}")
            return
        np.copyto(training.weights, self._first_weights())
        training.begin()

    def _first_weights(self) -> Array:
        """Those a run from the start begins with; shape ``[P]``."""
        spec, worker = self._spec, self._spec.worker
        if spec.initial_weights is not None:
            return spec.initial_weights
        return worker.model.initialise(spec.init, worker.seed, np.dtype(worker.dtype))

    def _train(self, run_logger: RunLogger) -> Outcome:
        training = self._training
        self._started_at, self._started_samples = monotonic(), training.num_samples
        self._phase = "training"
        try:
            # A loss that is not finite is noticed, and named, step by step.
            with np.errstate(all="ignore"):
                self._loop(run_logger)
        except DivergedError as error:
            return self._outcome("diverged", "divergence", error.advice)
        except CallbackError as failed:
            run_logger.save(training, seconds=self._seconds())
            run_logger.publish()
            raise failed.error from None
        ended = ended_by(self._spec, training, run_logger.evaluation)
        is_saved = run_logger.save(training, seconds=self._seconds(), is_end=ended is not None)
        if not is_saved and not training.trains_on:
            advice = "the weights are no longer finite numbers; the learning rate is too high. "
            return self._outcome("diverged", "divergence", advice + TOO_HIGH)
        if ended is None:
            return self._outcome("interrupted", "request")
        advice = training.divergence
        if ended == self._spec.length:
            advice = advice or self._step_runner.advice(self._first_weights)
        return self._outcome("done", ended, advice or unmet(self._spec, ended))

    def _loop(self, run_logger: RunLogger) -> None:
        """Step after step; at times an evaluation, a checkpoint."""
        training, observer, spec = self._training, self._observer, self._spec
        self._evaluate_if_due(run_logger)  # An error of a hook may have come before it.
        while not ended_by(spec, training, run_logger.evaluation) and not self._stop.is_set():
            if not self._step_runner.run_step(run_logger, self._seconds):
                continue
            if observer is not None:
                observer.on_phase("after_update", training.step)
            is_epoch_end = training.step % spec.update.steps_per_epoch == 0
            if is_epoch_end and self._hooks.on_epoch_end is not None:
                epoch = round(training.epoch)
                self._notify(EpochEnd(training.step, epoch, training.train_loss))
            self._evaluate_if_due(run_logger)
            if run_logger.checkpoint_is_due(training.step):
                self._phase = "saving"
                if observer is not None:
                    observer.on_phase("during_checkpoint", training.step)
                run_logger.save(training, seconds=self._seconds())
                self._phase = "training"

    def _evaluate_if_due(self, run_logger: RunLogger) -> None:
        """Evaluate on the held-out rows, if it is time and not done yet."""
        training, spec = self._training, self._spec
        if not evaluation_is_due(spec, training, run_logger.evaluation):
            return
        self._phase = "evaluating"
        row = self._step_runner.evaluate()
        run_logger.evaluated(row, training, seconds=self._seconds())
        self._phase = "training"
        self._notify(row)

    def _notify(self, event: Event) -> None:
        try:
            self._hooks.notify(event)
        except Exception as error:
            raise CallbackError(error) from error

    def _seconds(self) -> float:
        """Time spent training in all sessions of this run."""
        return self._seconds_before + monotonic() - self._started_at

    def _outcome(self, status: Ending, stopped_by: StoppedBy, advice: str = "") -> Outcome:
        training, now = self._training, self.status()
        return Outcome(
            run=str(self._spec.record.run),
            status=status,
            stopped_by=stopped_by,
            advice=advice or None,
            steps=training.step,
            epochs=training.epoch,
            train_loss=finite(training.train_loss),
            test_loss=finite(now.test_loss),
            test_accuracy=now.test_accuracy,
            weights_digest=weights_digest(training.weights),
            samples_per_s=now.num_samples / now.seconds if now.seconds else 0.0,
            num_workers=self._spec.pool.num_workers or 0,
            seconds=self._seconds(),
        )
