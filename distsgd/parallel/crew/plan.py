"""The plan: who computes a step. No input to the bits, only to the time.

A step's blocks are shared among neighbours in lane order. How many processes a step is worth is
found out by trying: each way is timed on real steps (all give the same bits), the fastest is used,
and now and then all are tried again. Pure; the time comes in from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Literal, NamedTuple

SERVER = -1  # The server's own process, as a worker among workers.
TRIAL_STEPS = 6
MOST_TRIAL_STEPS = 200
FEWEST_TRIAL_STEPS = 3
TRIAL_S = 0.03  # Shorter trials measure what the machine did beside.
LONG_TRIAL_S = 0.3
BLOCKS_A_WORKER = 4  # An evaluation with fewer is not worth the signals.
FIRST_TERM_STEPS = 500
LONGEST_TERM_STEPS = 50_000


class Share(NamedTuple):
    """Blocks ``first`` to ``last`` (excluded) for `worker`."""

    worker: int
    first: int
    last: int


@lru_cache(maxsize=4096)
def shares(num_blocks: int, workers: tuple[int, ...]) -> tuple[Share, ...]:
    """Cut the blocks of a step into a run for each of `workers`.

    Those who would have none are left out.

    >>> shares(5, (0, 1))
    (Share(worker=0, first=0, last=2), Share(worker=1, first=2, last=5))
    """
    count = len(workers)
    cuts = [num_blocks * i // count for i in range(count + 1)]
    return tuple(
        Share(worker, first, last)
        for worker, first, last in zip(workers, cuts, cuts[1:], strict=False)
        if first < last
    )


def ways(members: Sequence[int], num_blocks: int) -> list[tuple[int, ...]]:
    """The sets of processes worth trying for `num_blocks` blocks.

    The server alone, with workers, workers alone.

    >>> ways([0, 1], 8)
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
class MeasuredPlan:
    """Chooses the fastest of the ways for steps of one number of blocks, by trying them in turn."""

    candidates: list[tuple[int, ...]]
    chosen: int = 0
    _seconds: list[list[float]] = field(default_factory=list)
    _steps_left: int = 0
    _term: int = FIRST_TERM_STEPS
    _trying: bool = True

    def __post_init__(self) -> None:
        self._seconds = [[] for _ in self.candidates]

    @property
    def workers(self) -> tuple[int, ...]:
        """Who computes the next step."""
        return self.candidates[self.chosen]

    @property
    def is_settled(self) -> bool:
        """Is the fastest way known, until the next trial?"""
        return not self._trying or len(self.candidates) == 1

    def observe(self, seconds: float) -> None:
        """The step just made took so long."""
        if len(self.candidates) == 1:
            return
        if not self._trying:
            self._steps_left -= 1
            if self._steps_left <= 0:
                self._begin_trial()
            return
        times = self._seconds[self.chosen]
        times.append(seconds)
        if not _is_enough(times):
            return
        if self.chosen + 1 < len(self.candidates):
            self.chosen += 1
            return
        # The first step of a way finds cold caches and nothing read ahead.
        costs = [median(times[1:]) for times in self._seconds]
        self.chosen = costs.index(min(costs))
        self._trying = False
        self._steps_left, self._term = self._term, min(2 * self._term, LONGEST_TERM_STEPS)

    def _begin_trial(self) -> None:
        self._trying, self.chosen = True, 0
        self._seconds = [[] for _ in self.candidates]


def _is_enough(times: Sequence[float]) -> bool:
    """Has a way been tried often and long enough? Slow steps tell more, and cost more."""
    total_s = sum(times[1:])
    if total_s > LONG_TRIAL_S:
        return len(times) >= FEWEST_TRIAL_STEPS
    return len(times) >= TRIAL_STEPS and (total_s >= TRIAL_S or len(times) >= MOST_TRIAL_STEPS)


PlanKind = Literal["measured", "all"]


class Planner:
    """Who computes which blocks, for a changing crew.

    `kind` "all" makes every worker work in every step.
    """

    def __init__(self, kind: PlanKind) -> None:
        self._kind = kind
        self._members: tuple[int, ...] = ()
        self._plans: dict[int, MeasuredPlan] = {}

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that are there."""
        return self._members

    def set_members(self, members: Sequence[int]) -> None:
        """The workers that are there have changed; everything is measured again."""
        self._members = tuple(sorted(members))
        self._plans.clear()

    def shares(self, num_blocks: int) -> tuple[Share, ...]:
        """Who computes the next step of `num_blocks` blocks."""
        if not self._members or not num_blocks:
            return shares(num_blocks, (SERVER,))
        if self._kind == "all":
            return shares(num_blocks, self._members)
        return shares(num_blocks, self._plan(num_blocks).workers)

    def shares_unmeasured(self, num_blocks: int) -> tuple[Share, ...]:
        """Who computes what comes too seldom to be measured: an evaluation."""
        is_worth_it = self._kind == "all" or num_blocks >= BLOCKS_A_WORKER * len(self._members)
        if self._members and is_worth_it:
            return shares(num_blocks, self._members)
        return shares(num_blocks, (SERVER,))

    def observe(self, num_blocks: int, seconds: float) -> None:
        """A step of `num_blocks` blocks took so long."""
        if self._members and self._kind == "measured":
            self._plan(num_blocks).observe(seconds)

    def is_settled(self, num_blocks: int) -> bool:
        """Is it known who best computes steps of `num_blocks` blocks?"""
        plan = self._plans.get(num_blocks)
        return plan is None or plan.is_settled

    def _plan(self, num_blocks: int) -> MeasuredPlan:
        plan = self._plans.get(num_blocks)
        if plan is None:
            plan = self._plans[num_blocks] = MeasuredPlan(ways(self._members, num_blocks))
        return plan
