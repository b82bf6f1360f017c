"""How long an experiment takes at most, and what a budget leaves out of it: said beforehand.

Learning runs mostly end early, at their target; here each is counted to the end of its samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distsgd.experiments.plan import LEAST_PAIRS, NUM_RATES, NUM_REFINED, RUNGS, Grid, ScalePlan
from distsgd.lab.step_time import WARM_UP_SHARE, time_steps
from distsgd.parallel.numerics import num_cores

CALIBRATION_S = 0.2
START_S, WORKERS_S, RAY_S = 1.0, 2.5, 6.0  # Of a process, of the workers of a run, of Ray.
LEAST_BATCHES = 2


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

    @property
    def seconds(self) -> float:
        """Of the whole but for the peers."""
        return self.learning_s + self.timing_s + self.full_s


def calibrate(grid: Grid, data: Path) -> dict[int, float]:
    """Seconds a sample on one core, by batch size; blocks for some tenths of a second each."""
    found = {}
    for batch in grid.batches:
        step = time_steps(grid.timing_config(batch, 0), data, CALIBRATION_S)
        found[batch] = step.seconds / step.batch
    return found


def estimate(grid: Grid, sample_s: Mapping[int, float]) -> Estimate:
    """Of the experiment on this machine."""
    plan = grid.plan
    runs, shares = plan.seeds, float(plan.seeds)
    for number in (NUM_RATES, NUM_REFINED) if plan.rates else ():
        runs += number
        shares += _halved(number)
    whole_s = [grid.most_samples * sample_s[batch] for batch in grid.batches]
    learning_s = sum(shares * seconds + runs * START_S for seconds in whole_s) / num_cores()
    pairs = len(grid.timings) * plan.num_pairs
    most_workers = max(grid.workers)
    pair_s = 2 * plan.timed_s * (1 + WARM_UP_SHARE) + (WORKERS_S if most_workers else 0.0)
    timing_s = pairs * pair_s + (RAY_S if most_workers else 0.0)
    return Estimate(len(whole_s) * runs, pairs, learning_s, timing_s, 3 * max(whole_s))


def _halved(number: int) -> float:
    """Whole runs' worth of samples that so many trials use: at each rung half of them stay."""
    used, before, left = 0.0, 0.0, number
    for share in RUNGS:
        used, before, left = used + left * (share - before), share, (left + 1) // 2
    return used


def within_budget(
    plan: ScalePlan, num_rows: int, sample_s: Mapping[int, float]
) -> tuple[ScalePlan, Estimate]:
    """The plan as the budget has room for it, with what it leaves out in `plan.left_out`.

    Left out are first the timed pairs above the fewest, then seeds, then the batch sizes that take
    longest; two batch sizes stay in any case.
    """
    while True:
        grid = Grid.of(plan, num_rows)
        found = estimate(grid, sample_s)
        if plan.budget_s is None or found.seconds <= plan.budget_s:
            return plan, found
        for leave_out in (_fewer_pairs, _fewer_seeds, _fewer_batches):
            if (smaller := leave_out(plan, grid, sample_s)) is not None:
                plan = smaller
                break
        else:
            return plan, found


def _fewer_pairs(plan: ScalePlan, _: Grid, __: Mapping[int, float]) -> ScalePlan | None:
    if plan.num_pairs == LEAST_PAIRS:
        return None
    said = f"timed pairs a cell: {LEAST_PAIRS} instead of {plan.num_pairs}"
    return replace(plan, num_pairs=LEAST_PAIRS, left_out=(*plan.left_out, said))


def _fewer_seeds(plan: ScalePlan, _: Grid, __: Mapping[int, float]) -> ScalePlan | None:
    if plan.seeds == 1:
        return None
    said = f"seeds: 1 instead of {plan.seeds}, so steps to target have no spread over seeds"
    return replace(plan, seeds=1, left_out=(*plan.left_out, said))


def _fewer_batches(plan: ScalePlan, grid: Grid, sample_s: Mapping[int, float]) -> ScalePlan | None:
    if len(grid.batches) <= LEAST_BATCHES:
        return None
    costliest = max(grid.batches, key=sample_s.__getitem__)
    kept = tuple(
        size for size in plan.batches if (grid.num_rows if size == "full" else size) != costliest
    )
    us = f"{sample_s[costliest] * 1e6:.1f} us a sample"
    said = f"batch size {costliest:,}: its runs take longest ({us})"
    return replace(plan, batches=kept, left_out=(*plan.left_out, said))
