"""Assignments: who computes which blocks of a step. No input to the bits, only to the time.

Each process gets a run of neighbouring blocks. How many processes a step is worth, and whether they
should spin between two messages, is found out by trying: each candidate is timed on real steps (all
give the same bits), the fastest is used, and all are tried again at growing intervals, and when it
becomes slow. Pure; the time comes in from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Literal, NamedTuple

from distsgd.parallel.messages import ComputeReply
from distsgd.parallel.numerics import num_cores

SERVER = -1  # The server's own process, as a worker among workers.
TRIAL_STEPS = 6
MOST_TRIAL_STEPS = 200
FEWEST_TRIAL_STEPS = 3
TRIAL_S = 0.03  # Shorter trials measure what else the machine did.
LONG_TRIAL_S = 0.3
BLOCKS_A_WORKER = 4  # An evaluation with fewer is not worth the signals.
FIRST_INTERVAL_STEPS = 500
LONGEST_INTERVAL_STEPS = 50_000
SLOW_FACTOR = 2.0  # A step is slow that takes so many times what it took in the trial.
MOST_SLOW_STEPS = 32  # More than the others: then the machine is no longer what it was.


class Assignment(NamedTuple):
    """Blocks ``first`` to ``last`` (excluded) for `worker`."""

    worker: int
    first: int
    last: int


@lru_cache(maxsize=4096)
def assignments(num_blocks: int, workers: tuple[int, ...]) -> tuple[Assignment, ...]:
    """Cut the blocks of a step into a run for each of `workers`.

    A worker that would have none is left out.

    >>> assignments(5, (0, 1))
    (Assignment(worker=0, first=0, last=2), Assignment(worker=1, first=2, last=5))
    """
    count = len(workers)
    cuts = [num_blocks * i // count for i in range(count + 1)]
    return tuple(
        Assignment(worker, first, last)
        for worker, first, last in zip(workers, cuts, cuts[1:], strict=False)
        if first < last
    )


class Candidate(NamedTuple):
    """Who computes a step, and whether they spin until the next: each needs a core of its own."""

    workers: tuple[int, ...]
    spin: bool = False


def with_and_without_spinning(workers: tuple[int, ...], cores: int) -> list[Candidate]:
    """The candidates for `workers`: they and the server can spin where each has a core.

    >>> with_and_without_spinning((-1, 0), 2)
    [Candidate(workers=(-1, 0), spin=False), Candidate(workers=(-1, 0), spin=True)]
    >>> with_and_without_spinning((0, 1), 2)
    [Candidate(workers=(0, 1), spin=False)]
    """
    fits = 1 < len({SERVER, *workers}) <= cores
    return [Candidate(workers), Candidate(workers, spin=True)] if fits else [Candidate(workers)]


def process_sets(workers: Sequence[int], num_blocks: int) -> list[tuple[int, ...]]:
    """The sets of processes worth trying for `num_blocks` blocks.

    The server alone, with workers, workers alone.

    >>> process_sets([0, 1], 8)
    [(-1,), (-1, 0), (0, 1)]
    """
    found: list[tuple[int, ...]] = [(SERVER,)]
    size = 2
    while size <= num_blocks and size <= len(workers) + 1:
        found.append((SERVER, *workers[: size - 1]))
        if size <= len(workers):
            found.append(tuple(workers[:size]))
        size = len(workers) if size < len(workers) < 2 * size else 2 * size
    return found


@dataclass(slots=True)
class Autotuner:
    """Finds the fastest of `candidates`, for steps of one number of blocks, by trying each."""

    candidates: list[Candidate]
    chosen: int = 0
    _seconds: list[list[float]] = field(default_factory=list)
    _steps_left: int = 0
    _interval: int = FIRST_INTERVAL_STEPS
    _trying: bool = True
    _cost_s: float = 0.0  # Of a step in the candidate that is used, when it was tried.
    _num_slow: int = 0

    def __post_init__(self) -> None:
        self._seconds = [[] for _ in self.candidates]

    @property
    def candidate(self) -> Candidate:
        """Who computes the next step."""
        return self.candidates[self.chosen]

    @property
    def is_settled(self) -> bool:
        """Is the fastest candidate known, until the next trial?"""
        return not self._trying or len(self.candidates) == 1

    def observe(self, seconds: float) -> None:
        """The step just made took so long."""
        if len(self.candidates) == 1:
            return
        if not self._trying:
            self._steps_left -= 1
            is_slow = seconds > SLOW_FACTOR * self._cost_s
            self._num_slow = max(0, self._num_slow + (1 if is_slow else -1))
            if self._steps_left <= 0 or self._num_slow >= MOST_SLOW_STEPS:
                self._begin_trial()
            return
        times = self._seconds[self.chosen]
        times.append(seconds)
        if not _is_enough(times):
            return
        if self.chosen + 1 < len(self.candidates):
            self.chosen += 1
            return
        # The first step of a candidate finds cold caches and nothing read ahead.
        costs = [median(times[1:]) for times in self._seconds]
        self._cost_s = min(costs)
        self.chosen = costs.index(self._cost_s)
        self._trying, self._num_slow = False, 0
        self._steps_left, self._interval = (
            self._interval,
            min(2 * self._interval, LONGEST_INTERVAL_STEPS),
        )

    def _begin_trial(self) -> None:
        self._trying, self.chosen = True, 0
        self._seconds = [[] for _ in self.candidates]


def _is_enough(times: Sequence[float]) -> bool:
    """Has a candidate been tried often and long enough? Slow steps tell more, and cost more."""
    total_s = sum(times[1:])
    if total_s > LONG_TRIAL_S:
        return len(times) >= FEWEST_TRIAL_STEPS
    return len(times) >= TRIAL_STEPS and (total_s >= TRIAL_S or len(times) >= MOST_TRIAL_STEPS)


AssignmentKind = Literal["autotune", "all"]


class Assigner:
    """Who computes which blocks, for any set of workers; `kind` "all" uses all of them always.

    Args:
        kind: How the processes of a step are chosen.
        cores: As many processes can spin; None: as many as this machine has cores.
    """

    def __init__(self, kind: AssignmentKind, *, cores: int | None = None) -> None:
        self._kind = kind
        self._cores = cores or num_cores()
        self._tuners: dict[tuple[tuple[int, ...], int], Autotuner] = {}

    def forget(self) -> None:
        """A worker is new: everything is measured again."""
        self._tuners.clear()

    def tuner(self, num_blocks: int, workers: tuple[int, ...]) -> Autotuner:
        """What chooses who computes a step of `num_blocks` blocks where `workers` can be used."""
        tuner = self._tuners.get((workers, num_blocks))
        if tuner is None:
            is_all = self._kind == "all" and workers
            tried = [workers] if is_all else process_sets(workers, num_blocks)
            candidates = [
                candidate
                for processes in tried
                for candidate in with_and_without_spinning(processes, self._cores)
            ]
            tuner = self._tuners[workers, num_blocks] = Autotuner(candidates)
        return tuner

    def unmeasured(self, num_blocks: int, workers: tuple[int, ...]) -> Candidate:
        """Who computes what comes too seldom to be measured: an evaluation."""
        is_worth_it = self._kind == "all" or num_blocks >= BLOCKS_A_WORKER * len(workers)
        return Candidate(workers if workers and is_worth_it else (SERVER,))


@dataclass(slots=True)
class Phases:
    """Where the time of all steps so far went, in seconds; each step's add up to its own.

    Attributes:
        read: Rows that were not read ahead, in the slowest process of each step.
        compute: Blocks, in the same process.
        signal: What sending, waking and receiving took beyond that.
        reduce: Summing what the workers left unsummed.
        idle: What the other processes waited for the slowest, on average; not part of the sum.
    """

    read: float = 0.0
    compute: float = 0.0
    signal: float = 0.0
    reduce: float = 0.0
    idle: float = 0.0

    def add(self, reports: Sequence[ComputeReply], *, gather_s: float, reduce_s: float) -> None:
        """Take in one step."""
        if len(reports) == 1:
            slowest = reports[0]
            busy_s = (slowest.read_us + slowest.compute_us) * 1e-6
        else:
            times = [report.read_us + report.compute_us for report in reports]
            slowest = reports[times.index(max(times))]
            busy_s = max(times) * 1e-6
            self.idle += busy_s - sum(times) * 1e-6 / len(times)
        self.read += slowest.read_us * 1e-6
        self.compute += slowest.compute_us * 1e-6
        self.signal += gather_s - busy_s
        self.reduce += reduce_s
