"""Making the steps of a run that is written down, and what is called while they are made.

The one way for training, replay and measuring. Nothing here changes a bit of the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distsgd.base.settings import refuse
from distsgd.parallel.launch.launch import launch
from distsgd.parallel.server.spec import Outcome, ServerSpec, Status, Watch
from distsgd.parallel.server.step_runner import NO_HOOKS, EpochEnd, EventHooks, StepView
from distsgd.run.run_files import read_initial_weights
from distsgd.run.spec import RunSpec
from distsgd.store.logs import EvaluationRow
from distsgd.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from distsgd.run.run import Run


_HOOKS = (
    "on_train_start",
    "on_step",
    "on_epoch_end",
    "on_evaluate",
    "on_message",
    "on_progress",
    "on_train_end",
)


class Callback:
    """What is called while a run is trained: a subclass with some of these methods, or functions.

    Which hooks the run waits for:

    - ``on_train_start``, ``on_train_end``: always; they are called in the thread that called `fit`,
      before the first step and after the last.
    - ``on_step``, ``on_epoch_end``, ``on_evaluate``: without workers they are called in the thread
      that trains, and the run waits for them. On Ray they are called in the thread that called
      `fit`, in order, a little behind the run, which waits only where they fall far behind.
    - ``on_message``, ``on_progress``: never; they are called in the thread that called `fit`.

    An error that a hook raises while the run is trained ends it, with a checkpoint, and comes out
    of `fit`; one of ``on_train_start`` leaves no new run, one of ``on_train_end`` a finished one.
    A run that was finished before has no hooks called. No hook changes the run: a callback is no
    input to the bits.

    >>> losses = []
    >>> callback = Callback(on_step=lambda view: losses.append(view.loss))
    """

    def __init__(self, **hooks: Callable[[Any], object]) -> None:
        """Make one of functions.

        Args:
            **hooks: Functions by the name of their hook, each of one argument.

        Raises:
            ConfigError: There is no such hook, or it is no function.
        """
        for name, call in hooks.items():
            if name not in _HOOKS:
                refuse("a hook", name, f"one of {', '.join(_HOOKS)}")
            if not callable(call):
                refuse(name, call, "a function of one argument")
            setattr(self, name, call)

    def on_train_start(self, run: Run) -> None:
        """`run` is written down, and its first step, or its first after a resume, is to be made.

        A new run has no weights yet.
        """

    def on_step(self, view: StepView) -> None:
        """A step is made, before its update.

        A step that is made again after going back (``on_divergence``) is seen again.
        """

    def on_epoch_end(self, end: EpochEnd) -> None:
        """All rows were used once more."""

    def on_evaluate(self, evaluation: EvaluationRow) -> None:
        """The held-out rows were evaluated."""

    def on_message(self, text: str) -> None:
        """What a person should know; warnings among it."""

    def on_progress(self, progress: Progress) -> None:
        """Where the run is; about ten times a second."""

    def on_train_end(self, result: Run) -> None:
        """The run came to its end: not where it was interrupted, diverged or failed."""


class Callbacks:
    """Several callbacks as one, each called in its turn."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        if not isinstance(callbacks, Sequence) or not all(
            isinstance(callback, Callback) for callback in callbacks
        ):
            refuse(
                "callbacks", callbacks, "a list of distsgd.Callback: [Callback(on_message=print)]"
            )
        self._callbacks = tuple(callbacks)

    def train_start(self, run: Run) -> None:
        """See `Callback.on_train_start`."""
        for callback in self._callbacks:
            callback.on_train_start(run)

    def message(self, text: str) -> None:
        """See `Callback.on_message`."""
        for callback in self._callbacks:
            callback.on_message(text)

    def progress(self, progress: Progress) -> None:
        """See `Callback.on_progress`."""
        for callback in self._callbacks:
            callback.on_progress(progress)

    def train_end(self, result: Run) -> None:
        """See `Callback.on_train_end`."""
        for callback in self._callbacks:
            callback.on_train_end(result)

    def hooks(self) -> EventHooks:
        """Those that have something to do with the events of the loop."""
        return EventHooks(
            on_step=self._all("on_step"),
            on_epoch_end=self._all("on_epoch_end"),
            on_evaluate=self._all("on_evaluate"),
        )

    def _all(self, hook: str) -> Callable[[Any], None] | None:
        """One function that calls those that have `hook`; None where none has it."""
        calls = [
            getattr(callback, hook)
            for callback in self._callbacks
            if hook in vars(callback)
            or getattr(type(callback), hook) is not getattr(Callback, hook)
        ]
        if not calls:
            return None

        def call_all(event: Any) -> None:
            for call in calls:
                call(event)

        return call_all


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is.

    Attributes:
        step: Updates made.
        total_steps: Of the whole run; fewer where it has a target and meets it.
        epoch: Passes over the rows.
        total_epochs: Of the whole run.
        train_loss: Mean over the rows of the present epoch; None before its first step.
        test_loss: Of the last evaluation; None before the first.
        test_accuracy: The same; None where the labels are no classes.
        samples_per_s: Since this session of the run began.
        seconds_left: At this rate, to `total_steps`; None while there is none yet.
        num_workers: Worker processes that are connected.
        target: What ends it at the first evaluation that meets it; None for nothing.
    """

    step: int
    total_steps: int | None
    epoch: float
    total_epochs: float | None
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    samples_per_s: float
    seconds_left: float | None
    num_workers: int
    target: str | None = None


PREPARING_EVERY_S = 10.0


def rows_done(phase: str, done: int, total: int | None) -> str:
    """How far preparing data is, for people."""
    return f"{phase}: {done:,}" + (f" of {total:,} rows" if total else " rows")


class PreparingWatch:
    """Says now and then how far preparing data is; nothing where it takes a few seconds."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock, self._said_s = say, clock, clock()

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Called often."""
        if self._clock() - self._said_s >= PREPARING_EVERY_S:
            self._said_s = self._clock()
            self._say(rows_done(phase, done, total))


class ProgressWatch:
    """Turns the server's status into progress and messages, and a wish to stop into an answer.

    An error that a callback raises stops the run after its present step, and comes out of `end`.
    """

    def __init__(
        self,
        run_spec: RunSpec,
        on_progress: Callable[[Progress], None],
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._run_spec, self._stop = run_spec, stop
        self._on_progress, self._say = on_progress, say
        self._error: Exception | None = None

    def __call__(self, status: Status) -> bool:
        """Show `status`; should the run stop now?"""
        if self._error is None:
            try:
                self._show(status)
            except Exception as error:  # noqa: BLE001 -- raised again when the run has ended.
                self._error = error
        return self._error is not None or self._stop.is_set()

    def end(self) -> None:
        """The run has ended; raises what a callback raised."""
        if self._error is not None:
            raise self._error

    def _show(self, status: Status) -> None:
        for message in status.messages:
            self._say(message)
        if status.phase != "starting":
            self._on_progress(self._progress(status))

    def _progress(self, status: Status) -> Progress:
        total, sampler = self._run_spec.total_steps, self._run_spec.sampler
        rate = status.num_samples / status.seconds if status.seconds else 0.0
        rows_left = (total - status.step) * sampler.batch_rows
        return Progress(
            status.step,
            total,
            status.epoch,
            total / sampler.steps_per_epoch,
            status.train_loss,
            status.test_loss,
            status.test_accuracy,
            rate,
            rows_left / rate if rate else None,
            status.num_workers,
            self._run_spec.config.train.target,
        )


def _as_it_is(spec: ServerSpec) -> ServerSpec:
    return spec


def execute(
    run: RunDirectory,
    run_spec: RunSpec,
    watch: Watch,
    *,
    hooks: EventHooks = NO_HOOKS,
    changed: Callable[[ServerSpec], ServerSpec] = _as_it_is,
) -> Outcome:
    """Make the steps of `run` from where it is to its end; see `launch`. Blocks.

    Args:
        run: With its beginning in it (`run_files.begin`).
        run_spec: Of the same run.
        watch: Sees where the run is, and may end it.
        hooks: Called with the events of the loop.
        changed: What the server is told, where that is not all of what the run says.
    """
    initial_weights = read_initial_weights(run, run_spec)
    spec = changed(run_spec.server_spec(run.place, initial_weights))
    placement = run_spec.config.parallel.wanted_placement
    return launch(spec, run_spec.worker, watch, placement=placement, hooks=hooks)
