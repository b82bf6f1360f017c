"""How long a step of a run takes: a real run on prepared rows, timed from outside.

Everything is as in any run: the server and its workers, shards, sampling, history, digests and
statistics. Only its end is chosen from here.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, DivergedError, Interrupted
from distsgd.parallel.pool.autotuner import SERVER
from distsgd.parallel.server.spec import Status, Watch
from distsgd.run import run_files
from distsgd.run.execution import execute
from distsgd.run.source import manifest_of
from distsgd.run.spec import make_run_spec
from distsgd.store.logs import read_history

ROUNDS = 5
MIN_ROUND_STEPS = 3
SETTLE_TIMEOUT_S = 30.0
WARM_UP_SHARE = 0.5  # Of the seconds: the plan is found, files are in the cache.
_COUNTED = ("read", "compute", "signal", "reduce")  # Phases that the server measures one by one.


@dataclass(frozen=True, slots=True)
class Reading:
    """What a look at a run showed."""

    step: int
    seconds: float
    status: Status


@dataclass(frozen=True, slots=True)
class StepTime:
    """What a step took.

    Attributes:
        batch: Rows of a mini-batch.
        seconds: The median over the rounds.
        phases_s: Mean seconds of a step by phase: read, compute, signal, reduce; update is what is
            left, so that these five add up to the step. Next to them, and no part of the sum: wait,
            what the processes that computed waited for the slowest of them, on average.
        assignment: Who computed: "server", "worker 0", ...
    """

    batch: int
    seconds: float
    phases_s: dict[str, float]
    assignment: tuple[str, ...]


def time_steps(
    config: TrainConfig, data: Path, seconds: float, watch: Watch | None = None
) -> StepTime:
    """Time steps of a run without an end; blocks about 1.5 times `seconds`, and the start of Ray.

    Args:
        config: Of the run; as many steps as there can be.
        data: The prepared data set.
        seconds: To measure, after a warm-up of half as long.
        watch: Looks on as well, and may end it.

    Raises:
        ConfigError: It cannot be run, or leaves nothing to time.
        DataError: The rows cannot be used.
        ClusterError: Ray or a worker is missing.
        DivergedError: The loss grows without bound at the rate of `config`.
        Interrupted: Ctrl-C ended it.
    """
    with tempfile.TemporaryDirectory(prefix="distsgd-bench-") as directory:
        run_spec = make_run_spec(config, data, manifest_of(data))
        run = run_files.begin(Path(directory) / "run", run_spec, None)
        look = _Look(seconds, watch)
        outcome = execute(run, run_spec, look)
        history = read_history(run.history)
    if outcome.stopped_by == "request" and not look.has_asked:
        raise Interrupted("interrupted before enough steps were timed; nothing was measured")
    if outcome.status == "diverged":
        raise DivergedError(outcome.steps, outcome.advice or "")
    return _step_time(run_spec.sampler.batch_rows, look.readings, history)


class _Look:
    """Looks on, keeps what it saw after the warm-up, and stops the run when it has seen enough."""

    def __init__(self, seconds: float, watch: Watch | None) -> None:
        self._warm_up_s = WARM_UP_SHARE * seconds
        self._seconds = seconds
        self._watch = watch
        self.readings: list[Reading] = []
        self.has_asked = False

    def __call__(self, status: Status) -> bool:
        """Keep what is seen; should the run stop now?"""
        self.has_asked = self.has_asked or self._is_enough(status)
        return self.has_asked

    def _is_enough(self, status: Status) -> bool:
        if self._watch is not None and self._watch(status):
            return True
        if status.phase != "training" or status.seconds < self._warm_up_s:
            return False
        if not (self.readings or status.is_settled or status.seconds > SETTLE_TIMEOUT_S):
            return False
        self.readings.append(Reading(status.step, status.seconds, status))
        first, last = self.readings[0], self.readings[-1]
        enough_steps = last.step - first.step >= ROUNDS * MIN_ROUND_STEPS
        return last.seconds - first.seconds >= self._seconds and enough_steps


def _step_time(batch: int, readings: list[Reading], history: Any) -> StepTime:
    first, last = (readings[i].status for i in (0, -1)) if readings else (None, None)
    if first is None or last is None or last.step == first.step:
        raise ConfigError(
            ["the run ended before a step was timed (leave [train] steps and epochs as they are)"]
        )
    steps = last.step - first.step
    phases = {
        name: (getattr(last.phases, name) - getattr(first.phases, name)) / steps
        for name in _COUNTED
    }
    rounds = round_means(history, first.step, last.step)
    phases["update"] = mean(rounds) - sum(phases.values())
    phases["wait"] = (last.phases.idle - first.phases.idle) / steps
    names = ("server" if worker == SERVER else f"worker {worker}" for worker in last.plan)
    return StepTime(batch, median(rounds), phases, (*names,))


def round_means(history: Any, first: int, last: int) -> list[float]:
    """Seconds of a step in each of at most `ROUNDS` rounds of the steps from `first` to `last`.

    By the server's own clock at each step: looks from outside are a tenth of a second apart, in
    which there is a whole number of steps, so that long steps came out wrong by some per cent.

    Raises ConfigError where the history has no two rows between them.
    """
    steps, seconds = (history[name].to_numpy() for name in ("step", "seconds"))
    within = np.flatnonzero((steps >= first) & (steps <= last))
    if len(within) < 2:
        rule = "must leave two rows of the history to time (set [train] history_every=1)"
        raise ConfigError([f"the run was timed from step {first} to {last}; {rule}"])
    cuts = within[np.linspace(0, len(within) - 1, min(ROUNDS, len(within) - 1) + 1).astype(int)]
    times, counts = np.diff(seconds[cuts]), np.diff(steps[cuts])
    return [float(time) for time in times / counts]
