"""The parameter server: it holds the weights and runs the step loop.

Workers compute, the server averages and updates.

    work    = deal(step)                  which rows, cut into blocks
    root    = crew.gather(work)           workers read the weights in place and write sums; one
    fixed tree
    row     = training.apply(root)        the mean, the update
    recorder.step_done(training, row)     history, digest; now and then a checkpoint

A plain class: it becomes an actor in `cluster`, or runs in a thread of the caller's process.
`train` blocks; all other methods may be called meanwhile, from another thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

import numpy as np

from distsgd.data.deal import Block
from distsgd.errors import DivergedError
from distsgd.parallel.crew import Crew, Work
from distsgd.parallel.exchange import ExchangeKind, open_exchange
from distsgd.parallel.exchange.contract import Address, Array, Layout, Worker
from distsgd.parallel.messages import Kind, WorkerTask
from distsgd.parallel.phases import Phases
from distsgd.parallel.plan import PlanKind, Planner
from distsgd.parallel.recorder import Recorder, RecordTask
from distsgd.parallel.reduction import Root
from distsgd.parallel.training import Training, UpdateTask
from distsgd.parallel.tree import most_nodes
from distsgd.store.digest import weights_digest
from distsgd.store.evaluations import EvaluationRow
from distsgd.store.run_directory import RunDirectory

Phase = Literal["starting", "training", "evaluating", "saving", "ended"]
Ending = Literal["done", "interrupted", "diverged"]
JOIN_TIMEOUT_S = 120.0
LOCK_TIMEOUT_S = (
    30.0  # A prompt resume after a killed driver overlaps the old server by about 1.5 s.
)


@dataclass(frozen=True, slots=True)
class CrewTask:
    """Who computes and how they are reached. No input to the bits."""

    num_workers: int
    plan: PlanKind
    exchange: ExchangeKind
    step_timeout_s: float
    secret: bytes = b""
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ServerTask:
    """All that a server needs to know to make a run, from the start or from its last checkpoint."""

    worker: WorkerTask
    update: UpdateTask
    record: RecordTask
    crew: CrewTask
    total_steps: int
    evaluate_every_steps: int
    num_test_rows: int
    init: Literal["glorot", "he"]
    initial_weights: Array | None = None  # [P]; instead of `init`.


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is, for whoever looks on."""

    phase: Phase
    step: int
    epoch: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    num_samples: int  # Since this server started to train.
    seconds: float  # The same.
    num_workers: int
    incarnation: int
    phases: Phases  # Of the steps made by this incarnation.
    plan: tuple[int, ...]  # Who computes a full step; -1 is the server itself.
    messages: tuple[str, ...]  # All of this incarnation so far.


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended; losses are means, `seconds` counts all sessions of the run."""

    status: Ending
    advice: str
    step: int
    epoch: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    weights_digest: str
    samples_per_s: float
    seconds: float


class ParameterServer:
    """One run's server; `make_worker` makes the worker with which it can compute by itself."""

    def __init__(
        self, task: ServerTask, make_worker: Callable[[WorkerTask], Worker], *, incarnation: int = 0
    ) -> None:
        self._task = task
        self._incarnation = incarnation
        self._messages: list[str] = []
        self._blocks_per_step = len(task.worker.deal.blocks(0))
        deal, model, crew = task.worker.deal, task.worker.model, task.crew
        slots = most_nodes(deal.lanes, deal.most_blocks_per_lane)
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
            planner=Planner(crew.plan),
            incarnation=incarnation,
            step_timeout_s=crew.step_timeout_s,
            say=self._messages.append,
        )
        self._training = Training(task.update, self._crew.weights)
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

    def status(self) -> Status:
        """Where the run is; answers at once."""
        training = self._training
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
            self._crew.plan(self._blocks_per_step),
            tuple(self._messages),
        )

    def train(self) -> Outcome:
        """Train from the last durable state to the end, or until asked to stop. Blocks.

        Raises:
            RunError: Another process has the run.
            CheckpointError: Nothing that was saved can be used.
            ClusterError: Workers do not come, do not answer, or compute other bits.
        """
        run = RunDirectory.open(self._task.record.run)
        with run.lock(LOCK_TIMEOUT_S):
            try:
                self._recorder = Recorder(self._task.record, self._task.worker.model)
                self._begin(self._recorder)
                self._crew.wait_for_members(self._task.crew.num_workers, JOIN_TIMEOUT_S)
                return self._train(self._recorder)
            finally:
                self._phase = "ended"
                self._crew.close()

    def _begin(self, recorder: Recorder) -> None:
        """Take the weights from the newest checkpoint, or make the first ones."""
        task, training = self._task, self._training
        seconds = recorder.resume(training, on_message=self._messages.append)
        if seconds is not None:
            self._seconds_before = seconds
            self._messages.append(f"going on after step {training.step}")
        elif task.initial_weights is not None:
            np.copyto(training.weights, task.initial_weights)
        else:
            worker = task.worker
            first = worker.model.initialise(task.init, worker.seed, np.dtype(worker.dtype))
            np.copyto(training.weights, first)

    def _train(self, recorder: Recorder) -> Outcome:
        task, training = self._task, self._training
        self._started_at, self._started_samples = monotonic(), training.num_samples
        self._phase = "training"
        advice = ""
        try:
            with np.errstate(
                all="ignore"
            ):  # A loss that is not finite is noticed, and named, step by step.
                self._loop(recorder)
                self._evaluate_if_due(recorder, at_end=True)
        except DivergedError as error:
            advice = error.advice
        saved = recorder.save(training, seconds=self._seconds()) if not advice else False
        if not saved and not advice:
            advice = (
                "the weights are no longer finite numbers; take a smaller [optimizer] learning_rate"
            )
        if advice:
            return self._outcome("diverged", advice)
        return self._outcome("done" if training.step >= task.total_steps else "interrupted")

    def _loop(self, recorder: Recorder) -> None:
        """The step loop."""
        training, total, deal = self._training, self._task.total_steps, self._task.worker.deal
        following = deal.blocks(training.step)
        while training.step < total and not self._stop.is_set():
            step, blocks = training.step, following
            following = deal.blocks(step + 1)
            root = self._crew.gather(Work(Kind.GRADIENT, step, blocks, len(following)))
            row = training.apply(root, self._seconds())
            recorder.step_done(training, row)
            if training.step % self._task.evaluate_every_steps == 0:
                self._evaluate_if_due(recorder)
            if recorder.checkpoint_is_due(training.step):
                self._phase = "saving"
                recorder.save(training, seconds=self._seconds())
                self._phase = "training"

    def _evaluate_if_due(self, recorder: Recorder, *, at_end: bool = False) -> None:
        """Evaluate on the held-out rows, if there are any and it is not done yet."""
        training, task = self._training, self._task
        done = recorder.evaluation is not None and recorder.evaluation.step == training.step
        if not task.num_test_rows or done or (at_end and training.step < task.total_steps):
            return
        self._phase = "evaluating"
        root = self._gather_evaluation(task.worker.deal.evaluation_blocks(task.num_test_rows))
        recorder.evaluated(self._evaluation_row(root), training, seconds=self._seconds())
        self._phase = "training"

    def _gather_evaluation(self, blocks: list[Block]) -> Root:
        return self._crew.gather(Work(Kind.EVALUATE, self._training.step, blocks))

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

    def _outcome(self, status: Ending, advice: str = "") -> Outcome:
        training, now = self._training, self.status()
        return Outcome(
            status,
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
