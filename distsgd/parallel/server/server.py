"""The parameter server: it holds the weights and runs the step loop.

Workers compute, the server averages and updates.

    row = steps.make()                   sample, gather, reduce, update: see `steps`
    recorder.step_done(training, row)    history, digest; now and then a checkpoint

A plain class: it becomes an actor in `cluster`, or runs in a thread of the caller's process.
`train` blocks; all other methods may be called meanwhile, from another thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import numpy as np

from distsgd.errors import DivergedError, RunError
from distsgd.parallel.chaos.injection import ServerFaults
from distsgd.parallel.crew import suspects
from distsgd.parallel.crew.crew import Crew, Work
from distsgd.parallel.crew.plan import Planner
from distsgd.parallel.crew.reduction import Root
from distsgd.parallel.crew.suspects import Suspects, namer
from distsgd.parallel.exchange import open_exchange
from distsgd.parallel.exchange.contract import Address, Array, Layout, OwnWorker, SharingExchange
from distsgd.parallel.messages import Kind, WorkerTask
from distsgd.parallel.server.job import Ending, Outcome, Phase, ServerTask, Status, StoppedBy
from distsgd.parallel.server.message_log import MessageLog
from distsgd.parallel.server.metrics import metrics_of
from distsgd.parallel.server.pace import TOO_HIGH
from distsgd.parallel.server.recorder import Recorder
from distsgd.parallel.server.step_view import CallbackError, OnStep
from distsgd.parallel.server.steps import Steps
from distsgd.parallel.server.training import Training
from distsgd.parallel.tree import most_nodes
from distsgd.store.digest import weights_digest
from distsgd.store.evaluations import EvaluationRow
from distsgd.store.run_directory import RunDirectory

JOIN_TIMEOUT_S = 120.0
LOCK_TIMEOUT_S = (
    30.0  # A prompt resume after a killed driver overlaps the old server by about 1.5 s.
)


class ParameterServer:
    """One run's server.

    Args:
        task: The run.
        make_worker: Makes the worker with which it can compute by itself.
        incarnation: How often the run's server was started anew.
        on_step: Called for every step, in the thread that trains.
    """

    def __init__(
        self,
        task: ServerTask,
        make_worker: Callable[[WorkerTask], OwnWorker],
        *,
        incarnation: int = 0,
        on_step: OnStep | None = None,
    ) -> None:
        self._born_s = monotonic()
        self._task = task
        self._incarnation = incarnation
        self._messages = MessageLog()
        sampler, model, crew = task.worker.sampler, task.worker.model, task.crew
        slots = most_nodes(sampler.most_leaves)
        layout = Layout(model.num_parameters, slots, task.worker.dtype)
        self._exchange = (
            open_exchange(
                crew.exchange, layout, secret=crew.secret, incarnation=incarnation, host=crew.host
            )
            if crew.num_workers
            else None
        )
        self._crew = Crew(
            layout,
            make_worker(task.worker),
            exchange=self._exchange,
            # Elsewhere, nobody can look for a message without falling asleep.
            planner=Planner(
                crew.plan, cores=None if isinstance(self._exchange, SharingExchange) else 1
            ),
            incarnation=incarnation,
            step_timeout_s=crew.step_timeout_s,
            say=self._messages.add,
        )
        self._training = Training(task.update, self._crew.weights, say=self._messages.add)
        self._steps = Steps(task, self._crew, self._training, on_step)
        self._faults = (
            ServerFaults(task.chaos, lambda: self._crew.members, self._crew.process_of)
            if task.chaos
            else None
        )
        self._steps.faults = self._faults
        self._recorder: Recorder | None = None
        self._stop = threading.Event()
        self._phase: Phase = "starting"
        self._started_at = 0.0
        self._started_samples = 0
        self._seconds_before = 0.0

    def address(self) -> Address:
        """Where workers connect."""
        assert self._exchange is not None
        return self._exchange.address

    def request_stop(self) -> None:
        """End after the present step, with a checkpoint."""
        self._stop.set()

    def expect(self, num_workers: int) -> None:
        """There will be `num_workers` workers, and no more."""
        self._crew.expect(num_workers)

    def note(self, message: str) -> None:
        """Say `message` among this server's own."""
        self._messages.add(message)

    def status(self, known: int = 0) -> Status:
        """Where the run is, with the messages after the first `known`; answers at once."""
        training = self._training
        num_messages, messages = self._messages.after(known)
        evaluation = self._recorder.evaluation if self._recorder else None
        return Status(
            self._phase,
            training.step,
            training.epoch,
            training.train_loss,
            evaluation.test_loss if evaluation else None,
            evaluation.test_accuracy if evaluation else None,
            training.num_samples - self._started_samples,
            monotonic() - self._started_at if self._started_at else 0.0,
            len(self._crew.members),
            self._incarnation,
            replace(self._crew.phases),
            self._crew.computed_by,
            self._crew.is_settled,
            num_messages,
            messages,
            self._crew.members,
        )

    def train(self) -> Outcome:
        """Train from the last durable state to the end, or until asked to stop. Blocks.

        How it ended is written down before the run is let go of: a process that waited for the
        run sees that there is nothing left to do.

        Raises:
            RunError: Another process has the run.
            CheckpointError: Nothing that was saved can be used.
            ClusterError: Workers do not come, do not answer, or compute other bits.
            Exception: What `on_step` raised; a checkpoint was written before.
        """
        task = self._task
        least = task.crew.least_workers
        try:
            run = RunDirectory.open(task.record.run)
            with run.lock(LOCK_TIMEOUT_S):
                if (ended := self._ended_before(run)) is not None:
                    return ended
                self._crew.suspects = Suspects(run.path / suspects.FILE, namer(task.worker))
                self._recorder = Recorder(task.record, task.worker.model)
                run.result_path.unlink(missing_ok=True)  # How an earlier session of it ended.
                self._begin(self._recorder)
                if not self._incarnation:  # After a death it is the server that is waited for.
                    count = task.crew.num_workers if least is None else least
                    self._crew.wait_for_members(count, JOIN_TIMEOUT_S)
                else:
                    back_s = monotonic() - self._born_s
                    self.note(f"the server is back {back_s:.1f} s after its first line")
                outcome = self._train(self._recorder)
                self._write_result(run, outcome)
                return outcome
        finally:
            self._phase = "ended"
            self._crew.close()

    def _ended_before(self, run: RunDirectory) -> Outcome | None:
        """How another process, or this server before it died, brought `run` to its end."""
        if not run.result_path.is_file():
            return None
        metrics = run.read_json(run.result_path)
        if metrics.get("status") != "done":
            return None
        self._messages.add(f"{run.path} is finished; nothing to do")
        try:
            return Outcome.from_metrics(metrics)
        except KeyError as missing:
            reason = f"has no {missing.args[0]}; restore it, or remove it to go on"
            raise RunError(run.result_path, reason) from None

    def _write_result(self, run: RunDirectory, outcome: Outcome) -> None:
        chaos, num_workers = self._task.chaos, self._task.crew.num_workers
        faults = chaos.log.names() if chaos else None
        metrics = metrics_of(outcome, run=str(run.path), num_workers=num_workers, faults=faults)
        run.write_json(run.result_path, metrics)

    def _begin(self, recorder: Recorder) -> None:
        """Take the weights from the newest checkpoint, or make the first ones."""
        training = self._training
        seconds = recorder.resume(training, on_message=self._messages.add)
        if seconds is not None:
            self._seconds_before = seconds
            self._messages.add(f"going on after step {training.step}")
            return
        np.copyto(training.weights, self._first_weights())
        training.begin()

    def _first_weights(self) -> Array:
        """Those a run from the start begins with; shape ``[P]``."""
        task, worker = self._task, self._task.worker
        if task.initial_weights is not None:
            return task.initial_weights
        return worker.model.initialise(task.init, worker.seed, np.dtype(worker.dtype))

    def _train(self, recorder: Recorder) -> Outcome:
        training = self._training
        self._started_at, self._started_samples = monotonic(), training.num_samples
        self._phase = "training"
        try:
            # A loss that is not finite is noticed, and named, step by step.
            with np.errstate(all="ignore"):
                self._loop(recorder)
                self._evaluate_if_due(recorder, at_end=True)
        except DivergedError as error:
            return self._outcome("diverged", "divergence", error.advice)
        except CallbackError as failed:
            recorder.save(training, seconds=self._seconds())
            raise failed.error from None
        is_end = self._is_at_end()
        is_saved = recorder.save(training, seconds=self._seconds(), is_end=is_end)
        if not is_saved and not training.trains_on:
            advice = "the weights are no longer finite numbers; the learning rate is too high. "
            return self._outcome("diverged", "divergence", advice + TOO_HIGH)
        if training.is_at_rest:
            return self._outcome("done", "gradient")
        if training.step < self._task.total_steps:
            return self._outcome("interrupted", "request")
        advice = training.divergence or self._steps.advice(self._first_weights)
        return self._outcome("done", self._task.length, advice)

    def _loop(self, recorder: Recorder) -> None:
        """The step loop."""
        training, faults = self._training, self._faults
        while not self._is_at_end() and not self._stop.is_set():
            step = training.step
            row = self._steps.make(self._seconds)
            if training.step == step:
                continue  # It went back; the same step is made again.
            recorder.step_done(training, row)
            if faults is not None:
                faults("after_apply", training.step)
            if training.step % self._task.evaluate_every_steps == 0:
                self._evaluate_if_due(recorder)
            if recorder.checkpoint_is_due(training.step):
                self._phase = "saving"
                if faults is not None:
                    faults("during_checkpoint", training.step)
                recorder.save(training, seconds=self._seconds())
                self._phase = "training"

    def _is_at_end(self) -> bool:
        return self._training.is_at_rest or self._training.step >= self._task.total_steps

    def _evaluate_if_due(self, recorder: Recorder, *, at_end: bool = False) -> None:
        """Evaluate on the held-out rows, if there are any and it is not done yet."""
        training, task = self._training, self._task
        done = recorder.evaluation is not None and recorder.evaluation.step == training.step
        if not task.num_test_rows or done or (at_end and not self._is_at_end()):
            return
        self._phase = "evaluating"
        if self._faults is not None:
            self._faults("during_evaluation", training.step)
        partition = task.worker.sampler.blocking.evaluation(task.num_test_rows)
        root = self._crew.gather(Work(Kind.EVALUATE, training.step, partition))
        recorder.evaluated(self._evaluation_row(root), training, seconds=self._seconds())
        self._phase = "training"

    def _evaluation_row(self, root: Root) -> EvaluationRow:
        sums, training = root.sums, self._training
        is_class = self._task.worker.has_classes
        return EvaluationRow(
            training.step,
            training.epoch,
            sums.loss_sum / sums.num_samples,
            sums.correct / sums.num_samples if is_class else None,
            sums.num_samples,
        )

    def _seconds(self) -> float:
        """Time spent training in all sessions of this run."""
        return self._seconds_before + monotonic() - self._started_at

    def _outcome(self, status: Ending, stopped_by: StoppedBy, advice: str = "") -> Outcome:
        training, now = self._training, self.status()
        return Outcome(
            status,
            stopped_by,
            advice,
            training.step,
            training.epoch,
            _finite(training.train_loss),
            _finite(now.test_loss),
            now.test_accuracy,
            weights_digest(training.weights),
            now.num_samples / now.seconds if now.seconds else 0.0,
            self._seconds(),
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
