"""The plan: who computes a step. No input to the bits, only to the time.

A step's blocks are shared among neighbours in lane order. How many processes a step is worth, and
whether they should spin between two messages, is found out by trying: each candidate is timed on
real steps (all give the same bits), the fastest is used, and all are tried again now and then, and
when it becomes slow. Pure; the time comes in from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Literal, NamedTuple

from distsgd.base.cores import num_cores

SERVER = -1  # The server's own process, as a worker among workers.
TRIAL_STEPS = 6
MOST_TRIAL_STEPS = 200
FEWEST_TRIAL_STEPS = 3
TRIAL_S = 0.03  # Shorter trials measure what the machine did beside.
LONG_TRIAL_S = 0.3
BLOCKS_A_WORKER = 4  # An evaluation with fewer is not worth the signals.
FIRST_INTERVAL_STEPS = 500
LONGEST_INTERVAL_STEPS = 50_000
SLOW_FACTOR = 2.0  # A step that takes so much longer than in the trial is slow.
MOST_SLOW_STEPS = 32  # More than the others: then the machine is no longer what it was.


class Assignment(NamedTuple):
    """Blocks ``first`` to ``last`` (excluded) for `worker`."""

    worker: int
    first: int
    last: int


@lru_cache(maxsize=4096)
def assignments(num_blocks: int, workers: tuple[int, ...]) -> tuple[Assignment, ...]:
    """Cut the blocks of a step into a run for each of `workers`.

    Those who would have none are left out.

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
    """Who computes a step, and whether they stay awake for the next: one core for each."""

    workers: tuple[int, ...]
    spin: bool = False


def with_and_without_spinning(workers: tuple[int, ...], cores: int) -> list[Candidate]:
    """The ways for `workers`, with the server: they can stay awake where each has a core.

    >>> with_and_without_spinning((-1, 0), 2)
    [Candidate(workers=(-1, 0), spin=False), Candidate(workers=(-1, 0), spin=True)]
    >>> with_and_without_spinning((0, 1), 2)
    [Candidate(workers=(0, 1), spin=False)]
    """
    fits = 1 < len({SERVER, *workers}) <= cores
    return [Candidate(workers), Candidate(workers, spin=True)] if fits else [Candidate(workers)]


def pools(members: Sequence[int], num_blocks: int) -> list[tuple[int, ...]]:
    """The sets of processes worth trying for `num_blocks` blocks.

    The server alone, with workers, workers alone.

    >>> pools([0, 1], 8)
    [(-1,), (-1, 0), (0, 1)]
    """
    found: list[tuple[int, ...]] = [(SERVER,)]
    size = 2
    while size <= num_blocks and size <= len(members) + 1:
        found.append((SERVER, *members[: size - 1]))
        if size <= len(members):
            found.append(tuple(members[:size]))
        size = len(members) if size < len(members) < 2 * size else 2 * size
    return found


@dataclass(slots=True)
class Autotuner:
    """Chooses the fastest of the ways for steps of one number of blocks, by trying them in turn."""

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
        """Who computes the next step, and how."""
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


class Planner:
    """Who computes which blocks, for a changing pool.

    `kind` "all" makes every worker work in every step that is fit to.
    """

    def __init__(self, kind: AssignmentKind, *, cores: int | None = None) -> None:
        self._kind = kind
        self._cores = cores or num_cores()
        self._members: tuple[int, ...] = ()
        self._tuners: dict[tuple[tuple[int, ...], int], Autotuner] = {}

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that are there."""
        return self._members

    def set_members(self, members: Sequence[int]) -> None:
        """Those who can be given work have changed; what was measured of each set is kept."""
        self._members = tuple(sorted(members))

    def forget(self) -> None:
        """Somebody is new: everything is measured again."""
        self._tuners.clear()

    def assignments(self, num_blocks: int) -> tuple[Assignment, ...]:
        """Who computes the next step of `num_blocks` blocks."""
        if not self._members or not num_blocks:
            return assignments(num_blocks, (SERVER,))
        return assignments(num_blocks, self._tuner(num_blocks).candidate.workers)

    def spin(self, num_blocks: int) -> bool:
        """Should all of them, and the server, look for messages without falling asleep?"""
        return bool(self._members and num_blocks) and self._tuner(num_blocks).candidate.spin

    def assignments_unmeasured(self, num_blocks: int) -> tuple[Assignment, ...]:
        """Who computes what comes too seldom to be measured: an evaluation."""
        is_worth_it = self._kind == "all" or num_blocks >= BLOCKS_A_WORKER * len(self._members)
        if self._members and is_worth_it:
            return assignments(num_blocks, self._members)
        return assignments(num_blocks, (SERVER,))

    def observe(self, num_blocks: int, seconds: float) -> None:
        """A step of `num_blocks` blocks took so long."""
        if self._members:
            self._tuner(num_blocks).observe(seconds)

    def is_settled(self, num_blocks: int) -> bool:
        """Is it known who best computes steps of `num_blocks` blocks?"""
        plan = self._tuners.get((self._members, num_blocks))
        return plan is None or plan.is_settled

    def _tuner(self, num_blocks: int) -> Autotuner:
        plan = self._tuners.get((self._members, num_blocks))
        if plan is None:
            is_all = self._kind == "all"
            tried = [self._members] if is_all else pools(self._members, num_blocks)
            candidates = [
                candidate
                for workers in tried
                for candidate in with_and_without_spinning(workers, self._cores)
            ]
            plan = self._tuners[self._members, num_blocks] = Autotuner(candidates)
        return plan
