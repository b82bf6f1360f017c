"""Where a run is, for whoever looks on: the server's status in the words of the trainer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from distsgd.parallel.server.spec import Status
from distsgd.run.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

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
    """Turns the server's status into progress and messages, and a wish to stop into an answer."""

    def __init__(
        self,
        run_spec: RunSpec,
        on_progress: Callable[[Progress], None],
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._blueprint, self._on_progress, self._say, self._stop = (
            run_spec,
            on_progress,
            say,
            stop,
        )

    def __call__(self, status: Status) -> bool:
        """Show `status`; should the run stop now?"""
        for message in status.messages:
            self._say(message)
        if status.phase != "starting":
            self._on_progress(self._progress(status))
        return self._stop.is_set()

    def _progress(self, status: Status) -> Progress:
        total, sampler = self._blueprint.total_steps, self._blueprint.sampler
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
        )
