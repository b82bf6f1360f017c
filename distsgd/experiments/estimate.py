"""How long an experiment takes at most, and what a budget leaves out of it: said beforehand.

Learning runs mostly end early, at their target; here each is counted to the end of its samples. So
are the peers, whose steps are not timed beforehand: they count as those of this project on one
core, and `PEER_STEP_S` more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distsgd.experiments.branching import EPOCHS, LEAST_STEPS, SHARES
from distsgd.experiments.plan import (
    EVALUATIONS_A_PART,
    LEAST_PAIRS,
    NUM_RATES,
    NUM_REFINED,
    RUNGS,
    Grid,
    ScalePlan,
)
from distsgd.experiments.products import NUM_FULL_RUNS
from distsgd.lab.step_time import WARM_UP_SHARE, time_steps
from distsgd.parallel.numerics import num_cores

CALIBRATION_S = 0.2
START_S, WORKERS_S, RAY_S = 1.0, 2.5, 6.0  # Of a process, of the workers of a run, of Ray.
PEER_START_S, PEER_STEP_S = 5.0, 5e-4  # To load its library, and what each step costs it besides.
LEAST_BATCHES, LEAST_SEEDS = 2, 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds at most, by what is made.

    Attributes:
        num_runs: Learning runs at most.
        num_pairs: Timed pairs.
    """

    num_runs: int
    num_pairs: int
    learning_s: float
    timing_s: float
    full_s: float
    branches_s: float
    peers_s: float

    @property
    def seconds(self) -> float:
        """Of the whole."""
        return self.learning_s + self.timing_s + self.full_s + self.branches_s + self.peers_s


@dataclass(frozen=True, slots=True)
class Speed:
    """What the estimate is made from.

    Attributes:
        num_test_rows: Of each evaluation; a row costs at most what a training sample does.
        sample_s: Seconds a training sample on one core, by batch size.
    """

    num_test_rows: int
    sample_s: Mapping[int, float]

    def at(self, batch: int) -> float:
        """Of a sample at most: as at the largest batch size that was timed and is no larger."""
        return self.sample_s[max(size for size in self.sample_s if size <= batch)]

    def run_s(self, grid: Grid, batch: int) -> float:
        """Of a run on one core to the end of its samples, with its evaluations."""
        evaluations = -(-grid.most_samples // max(grid.grid_samples, batch))
        return grid.most_samples * self.at(batch) + evaluations * self.evaluation_s

    @property
    def evaluation_s(self) -> float:
        """Of the held-out rows, which are taken many at once."""
        return self.num_test_rows * min(self.sample_s.values())


def calibrate(grid: Grid, data: Path, num_test_rows: int) -> Speed:
    """How fast this machine is; blocks for some tenths of a second a batch size."""
    found = {}
    for batch in grid.batches:
        step = time_steps(grid.timing_config(batch, 0), data, CALIBRATION_S)
        found[batch] = step.seconds / step.batch
    return Speed(num_test_rows, found)


def estimate(grid: Grid, speed: Speed) -> Estimate:
    """Of the experiment on this machine."""
    plan = grid.plan
    runs, shares = plan.seeds, float(plan.seeds)
    for number in (NUM_RATES, NUM_REFINED) if plan.rates else ():
        runs += number
        shares += _halved(number)
    whole_s = [speed.run_s(grid, batch) for batch in grid.batches]
    learning_s = sum(shares * seconds + runs * START_S for seconds in whole_s) / num_cores()
    pairs = len(grid.timings) * plan.num_pairs
    most_workers = max(grid.workers)
    pair_s = 2 * plan.timed_s * (1 + WARM_UP_SHARE) + (WORKERS_S if most_workers else 0.0)
    return Estimate(
        num_runs=len(whole_s) * runs,
        num_pairs=pairs,
        learning_s=learning_s,
        timing_s=pairs * pair_s + (RAY_S if most_workers else 0.0),
        full_s=NUM_FULL_RUNS * max(whole_s) + (sum(whole_s) if most_workers else 0.0),
        branches_s=_branches_s(grid, speed),
        peers_s=_peers_s(grid, speed),
    )


def _halved(number: int) -> float:
    """Whole runs' worth of samples that so many trials use: at each rung half of them stay."""
    used, before, left = 0.0, 0.0, number
    for share in RUNGS:
        used, before, left = used + left * (share - before), share, (left + 1) // 2
    return used


def _branches_s(grid: Grid, speed: Speed) -> float:
    """Of the smallest batch size, which has most of them, where it meets the target at its end."""
    if grid.plan.config.schedule.type != "constant":
        return 0.0
    batch, samples = grid.batches[0], EPOCHS * grid.num_rows
    trunks_s = [START_S + share * speed.run_s(grid, batch) for share in SHARES]
    evaluations_s = EPOCHS * EVALUATIONS_A_PART * speed.evaluation_s
    branches_s = []
    while batch <= samples // LEAST_STEPS:
        branches_s.append(START_S + samples * speed.at(batch) + evaluations_s)
        batch *= 2
    return (sum(trunks_s) + len(SHARES) * sum(branches_s)) / num_cores()


def _peers_s(grid: Grid, speed: Speed) -> float:
    """One after the other, as many seeds of each as there are runs."""
    runs_s = [
        speed.run_s(grid, batch) + PEER_STEP_S * grid.most_samples / batch for batch in grid.batches
    ]
    return len(grid.plan.peers) * (PEER_START_S + grid.plan.seeds * sum(runs_s))


def within_budget(plan: ScalePlan, num_rows: int, speed: Speed) -> tuple[ScalePlan, Estimate]:
    """The plan as the budget has room for it, with what it leaves out in `plan.left_out`.

    Left out are timed pairs above the fewest, then seeds but for two, then the peers, then the
    second seed, then the batch sizes that take longest; two batch sizes stay in any case.
    """
    smaller: ScalePlan | None = plan
    while smaller is not None:
        kept, grid = smaller, Grid.of(smaller, num_rows)
        found = estimate(grid, speed)
        is_within = plan.budget_s is None or found.seconds <= plan.budget_s
        smaller = None if is_within else _smaller(grid, speed)
    said = list(_left_out(plan, kept, num_rows, speed))
    if not is_within:
        said.append(
            f"what is not made when its {plan.budget_s:g} s are spent: the smallest that is worth "
            f"while takes {found.seconds:.0f} s at most"
        )
    return replace(kept, left_out=(*plan.left_out, *said)), found


def _smaller(grid: Grid, speed: Speed) -> ScalePlan | None:
    """One thing less; None where nothing can be left out."""
    plan = grid.plan
    if plan.num_pairs > LEAST_PAIRS:
        return replace(plan, num_pairs=plan.num_pairs - 1)
    if plan.seeds > LEAST_SEEDS:
        return replace(plan, seeds=plan.seeds - 1)
    if plan.peers:
        return replace(plan, peers=plan.peers[:-1])
    if plan.seeds > 1:
        return replace(plan, seeds=plan.seeds - 1)
    if len(grid.batches) > LEAST_BATCHES:
        costliest = max(grid.batches, key=speed.at)
        left = tuple(size for size in plan.batches if _rows(size, grid.num_rows) != costliest)
        return replace(plan, batches=left)
    return None


def _left_out(asked: ScalePlan, kept: ScalePlan, num_rows: int, speed: Speed) -> Iterator[str]:
    if kept.num_pairs < asked.num_pairs:
        yield f"timed pairs a cell: {kept.num_pairs} instead of {asked.num_pairs}"
    if kept.seeds < asked.seeds:
        so = ", so steps to target have no spread over seeds" if kept.seeds == 1 else ""
        yield f"seeds: {kept.seeds} instead of {asked.seeds}{so}"
    for name in asked.peers[len(kept.peers) :]:
        yield f"peer {name}: what a user would take instead is not measured with it"
    batches = {_rows(size, num_rows) for size in kept.batches}
    for batch in sorted({_rows(size, num_rows) for size in asked.batches} - batches):
        us = f"{speed.at(batch) * 1e6:.1f} us a sample"
        yield f"batch size {batch:,}: its runs take longest ({us})"


def _rows(size: int | str, num_rows: int) -> int:
    return num_rows if isinstance(size, str) else size
