"""Where a run is, and how far preparing its data is, for people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from distsgd.parallel.server.spec import Status
from distsgd.run.spec import RunSpec

PREPARING_EVERY_S = 10.0


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
