"""From the files of an experiment to its findings: the one place where they are read.

A function of the directory alone, so that an experiment that was killed and resumed has the same
findings, but for the times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from distsgd.errors import ConfigError
from distsgd.experiments.findings import (
    GridCell,
    LearningCell,
    TimedPlan,
    TimingCell,
    mean_rows,
)
from distsgd.experiments.learning import Chosen, Learning
from distsgd.experiments.learning_run import Learned, losses_of, noise_scale_of
from distsgd.experiments.plan import Grid, LearningKey, TimingKey
from distsgd.experiments.products import FullKey, FullRun, FullRuns, chosen_runs, step_seconds
from distsgd.experiments.timing import read_pairs
from distsgd.lab.step_time import StepTime
from distsgd.parallel.server.target import Target
from distsgd.statistics.intervals import (
    Interval,
    geometric_interval,
    median_interval,
    product_interval,
    ratio_interval,
    verdict,
)

_REASONS = {
    "diverged": "diverged",
    "spent": "target not reached",
    "unfinished": "out of budget",
    "missing": "out of budget",
}
_PHASES = {
    "read": "read",
    "compute": "compute",
    "signal": "exchange",
    "reduce": "sum",
    "update": "update",
    "wait": "wait",
}  # From the names of the loop to those of the report.


@dataclass(frozen=True, slots=True)
class Collected:
    """What an experiment's directory says, cell by cell."""

    grid: Grid
    directory: Path
    failed: dict[str, str]

    def chosen(self) -> tuple[Chosen, ...]:
        """The rate of each batch size, of what has been made."""
        learning = Learning(self.grid, self.directory, None, lambda: True, lambda _: None)
        return learning.choose_rates(make=False)

    def learning(self) -> tuple[LearningCell, ...]:
        """All learning runs: the trials, then those that count."""
        cells = []
        for choice in self.chosen():
            trial = self.grid.trial_seed
            if len(choice.tried) > 1:
                keys = [LearningKey(choice.batch, rate, trial) for rate in choice.tried]
                cells += [self._learned(key, choice, is_trial=True) for key in keys]
            keys = [LearningKey(choice.batch, choice.rate, seed) for seed in self.grid.seeds]
            cells += [self._learned(key, choice, is_trial=False) for key in keys]
        return tuple(cells)

    def _learned(self, key: LearningKey, choice: Chosen, *, is_trial: bool) -> LearningCell:
        learned = Learned.read(self.directory, key)
        metric = Target.parse(self.grid.plan.target).metric
        curve = [
            (self.grid.samples_at(row.step, key.batch), getattr(row, metric))
            for row in learned.evaluations
        ]
        known = [(samples, value) for samples, value in curve if value is not None]
        reason = self.failed.get(key.name) or _REASONS.get(learned.ending, "")
        rungs = [rung for rung in self.grid.rungs(key.batch) if rung is not None]
        last_step = learned.evaluations[-1].step if learned.evaluations else 0
        is_given_up = is_trial and learned.ending == "unfinished" and last_step >= min(rungs)
        samples_used = curve[-1][0] if curve else 0
        return LearningCell(
            batch=key.batch,
            rate=key.rate,
            seed=key.seed,
            is_trial=is_trial,
            is_chosen=key.rate == choice.rate,
            samples_after=_before_last(curve) if learned.steps else None,
            samples_until=curve[-1][0] if learned.steps else None,
            steps=learned.steps,
            samples_used=samples_used,
            reason="given up" if is_given_up else reason,
            noise_scale=noise_scale_of(self.directory, key, samples_used),
            digest=learned.digest,
            configuration=learned.configuration,
            seconds=learned.seconds,
            curve=(*known,),
            losses=() if is_trial else losses_of(self.directory, key),
        )

    def timings(self) -> tuple[TimingCell, ...]:
        """All timed cells, and the baselines among them."""
        cells = [self._timed(key) for key in self.grid.timings if key.workers]
        return (*(self._baseline(batch) for batch in self.grid.batches), *cells)

    def _timed(self, key: TimingKey) -> TimingCell:
        pairs = read_pairs(self.directory, key)
        plans = _plans([pair.candidate for pair in pairs])
        speeds = [(self._rate(pair.candidate), self._rate(pair.baseline)) for pair in pairs]
        shares = [
            (rate / len(pair.candidate.assignment), base)
            for pair, (rate, base) in zip(pairs, speeds, strict=True)
        ]
        return TimingCell(
            batch=key.batch,
            base_batch=key.base_batch,
            workers=key.workers,
            is_weak=key.is_weak,
            step_s=_interval([pair.candidate.seconds for pair in pairs]),
            baseline_s=_interval([pair.baseline.seconds for pair in pairs]),
            speed_up=_ratio(speeds),
            efficiency=_ratio(shares),
            phases_s=_phases([pair.candidate for pair in pairs], plans),
            num_pairs=len(pairs),
            plans=plans,
            reason="" if pairs else "out of budget",
        )

    def _rate(self, timed: StepTime) -> float:
        """Samples a second."""
        return mean_rows(timed.batch, self.grid.num_rows) / timed.seconds

    def _baseline(self, batch: int) -> TimingCell:
        keys = [key for key in self.grid.timings if key.base_batch == batch]
        pairs = [pair for key in keys for pair in read_pairs(self.directory, key)]
        plans = _plans([pair.baseline for pair in pairs])
        seconds = _interval(step_seconds(self.grid, self.directory, batch, 0))
        return TimingCell(
            batch=batch,
            base_batch=batch,
            workers=0,
            is_weak=False,
            step_s=seconds,
            baseline_s=seconds,
            speed_up=None,
            efficiency=None,
            phases_s=_phases([pair.baseline for pair in pairs], plans),
            num_pairs=len(pairs),
            plans=plans,
            reason="" if pairs else "out of budget",
        )

    def full_runs(self) -> tuple[FullRun, ...]:
        """Those that are run in full, made or not."""
        runs = FullRuns(self.grid, self.directory, None)
        return tuple(runs.read(key) for key in self.wanted_full_runs())

    def checks(self) -> tuple[FullRun, ...]:
        """Of each batch size that met the target a run in which all workers compute."""
        runs = FullRuns(self.grid, self.directory, None)
        return tuple(runs.read(key) for key in self.wanted_checks())

    def wanted_checks(self) -> tuple[FullKey, ...]:
        """Which runs are made for their bits; none without workers."""
        most = max(self.grid.workers)
        keys = (FullKey(learning, most, is_check=True) for learning in self._reached())
        return (*keys,) if most else ()

    def wanted_full_runs(self) -> tuple[FullKey, ...]:
        """Which cells are to be run in full: a function of what is in the directory."""
        runs = FullRuns(self.grid, self.directory, None)
        keys = [
            FullKey(learning, workers)
            for learning in self._reached()
            for workers in self.grid.workers
        ]
        expected = [(key, runs.expected(key)) for key in keys]
        return chosen_runs([(key, found.mid) for key, found in expected if found is not None])

    def _reached(self) -> Iterator[LearningKey]:
        """Of each batch size the first seed that met the target."""
        for choice in self.chosen():
            keys = (LearningKey(choice.batch, choice.rate, seed) for seed in self.grid.seeds)
            reached = (key for key in keys if Learned.read(self.directory, key).steps)
            if (first := next(reached, None)) is not None:
                yield first

    def cells(self) -> tuple[GridCell, ...]:
        """The whole grid: learning times time."""
        learned, timed = self.learning(), self.timings()
        full = {(run.key.learning.batch, run.key.workers): run.seconds for run in self.full_runs()}
        return tuple(
            self._cell(choice, learned, timing, full.get((choice.batch, timing.workers)))
            for choice in self.chosen()
            for timing in timed
            if timing.batch == choice.batch and not timing.is_weak
        )

    def _cell(
        self,
        choice: Chosen,
        learned: tuple[LearningCell, ...],
        timing: TimingCell,
        full_run_s: float | None,
    ) -> GridCell:
        runs = [it for it in learned if it.batch == choice.batch and not it.is_trial]
        steps = _steps_interval(self.grid, runs)
        reasons = sorted({run.reason for run in runs if run.reason} | {timing.reason} - {""})
        reached = [run.steps for run in runs if run.steps is not None]
        speed_up = timing.speed_up if steps and timing.workers else None
        return GridCell(
            batch=choice.batch,
            workers=timing.workers,
            rate=choice.rate,
            rate_at_edge=choice.is_at_edge,
            num_seeds=len(runs),
            num_reached=len(reached),
            steps=steps,
            steps_range=(min(reached), max(reached)) if reached else None,
            step_s=timing.step_s,
            time_s=product_interval(steps, timing.step_s) if steps and timing.step_s else None,
            full_run_s=full_run_s,
            plans=timing.plans,
            efficiency=timing.efficiency,
            verdict=verdict(speed_up, 1.0) if speed_up else "",
            reason="; ".join(reasons),
        )


def _before_last(curve: list[tuple[int, float | None]]) -> int:
    return curve[-2][0] if len(curve) > 1 else 0


def _interval(values: list[float]) -> Interval | None:
    try:
        return median_interval(np.array(values))
    except ConfigError:  # Too few yet.
        return None


def _ratio(pairs: list[tuple[float, float]]) -> Interval | None:
    try:
        return ratio_interval(np.array(pairs).reshape(-1, 2))
    except ConfigError:
        return None


def _plans(measured: list[StepTime]) -> tuple[TimedPlan, ...]:
    """Who computed, and how often; the commonest first."""
    found: dict[tuple[str, ...], list[float]] = {}
    for one in measured:
        found.setdefault(one.assignment, []).append(one.seconds)
    plans = [
        TimedPlan(assignment=assignment, num_pairs=len(seconds), step_s=median(seconds))
        for assignment, seconds in found.items()
    ]
    return tuple(sorted(plans, key=lambda plan: (-plan.num_pairs, plan.assignment)))


def _phases(measured: list[StepTime], plans: tuple[TimedPlan, ...]) -> dict[str, float]:
    """Medians over the pairs of the commonest plan, by the report's names."""
    some = [one.phases_s for one in measured if one.assignment == plans[0].assignment]
    return {
        name: median(max(0.0, phases_s[phase]) for phases_s in some)
        for phase, name in _PHASES.items()
        if some
    }


def _steps_interval(grid: Grid, runs: list[LearningCell]) -> Interval | None:
    """Steps to target: median over the seeds, with the width of the evaluation grid in its ends."""
    reached = [run for run in runs if run.steps is not None]
    if len(reached) < len(runs) or not reached:
        return None
    latest = [float(run.steps or 0) for run in reached]
    earliest = [float(grid.step_at(run.samples_after or 0, run.batch) + 1) for run in reached]
    mid = median(latest)
    if len(reached) < 2:
        return Interval(min(earliest), mid, max(latest))
    low, high = geometric_interval(np.array(earliest)), geometric_interval(np.array(latest))
    return Interval(min(low.low, mid), mid, max(high.high, mid))
