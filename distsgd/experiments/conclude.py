"""From the cells of an experiment to what is concluded from them: all that the report is told."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from distsgd.data.manifest import Manifest
from distsgd.errors import ConfigError
from distsgd.experiments.branching import Branching
from distsgd.experiments.collect import Collected
from distsgd.experiments.environment import changed, environment, recorded_in
from distsgd.experiments.findings import (
    CostLine,
    CriticalBatch,
    Findings,
    GridCell,
    LearningCell,
    PeerCell,
    StepTimeModel,
    TimingCell,
    mean_rows,
)
from distsgd.experiments.further_runs import further_runs
from distsgd.experiments.learning import Chosen
from distsgd.experiments.peer_runs import PeerRuns
from distsgd.experiments.plan import Grid, said
from distsgd.experiments.products import FullRun
from distsgd.experiments.timing import timed_in
from distsgd.models.protocol import Model
from distsgd.parallel.numerics import num_cores
from distsgd.statistics import critical_batch
from distsgd.statistics.branching import branched_critical_batch
from distsgd.statistics.noise_summary import nearest_batch, noise_scales_by_batch
from distsgd.statistics.step_time import (
    Cell,
    crossover,
    fit_step_time,
    left_out_errors,
)


def conclude(found: Collected, manifest: Manifest, model: Model) -> Findings:
    """All findings of an experiment, of what has been made of it."""
    grid, plan = found.grid, found.grid.plan
    learned, timed, cells = found.learning(), found.timings(), found.cells()
    chosen, full = found.chosen(), found.full_runs()
    peers = PeerRuns(grid, found.directory).read(chosen, found.failed)
    made = [run for run in full if run.num_digests]
    compared = [run for run in (*full, *found.checks()) if run.key.workers]
    fit = _hyperbola(grid, learned)
    return Findings(
        title=f"{Path(plan.config.data.paths[0]).stem}: {_network(model)}",
        command=plan.command,
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
        num_cores=num_cores(),
        num_rows=grid.num_rows,
        num_test_rows=manifest.test_rows,
        num_parameters=model.num_parameters,
        target=plan.target,
        batches=grid.batches,
        workers=grid.workers,
        grid_samples=grid.grid_samples,
        most_samples=grid.most_samples,
        learning=learned,
        timings=timed,
        cells=cells,
        fit=None if isinstance(fit, str) else (fit.min_steps, fit.batch.mid),
        critical=(
            _by_hyperbola(fit),
            _by_noise(learned, fit),
            _by_branching(Branching(grid, found.directory, None), chosen, found.failed),
        ),
        step_time=_step_time(timed, grid.num_rows),
        peers=peers,
        cost=tuple(_cost(peer, cells) for peer in peers if peer.time_s is not None),
        products=tuple(map(_sentence, full)),
        products_hold=all(run.holds for run in made) if made else None,
        num_digests=sum(run.num_digests for run in compared),
        digests_equal=all(run.same_bits for run in (*full, *compared)),
        left_out=plan.left_out,
        warnings=tuple(_warnings(found)),
        environment=_place(found),
        configuration=json.dumps(said(plan.config), indent=2),
        elsewhere=_elsewhere(found),
        runs=further_runs(found),
        data_digest=manifest.digest,
    )


def _network(model: Model) -> str:
    return f"{model.outline}, {model.num_parameters:,} parameters"


def _hyperbola(grid: Grid, learned: tuple[LearningCell, ...]) -> critical_batch.CriticalBatch | str:
    """The fit through steps to target; or why there is none."""
    runs = [run for run in learned if not run.is_trial]
    batch_N = np.array([mean_rows(run.batch, grid.num_rows) for run in runs], np.float64)
    missed_N = np.array([float(_missed(grid, run)) for run in runs])
    met_N = np.array([math.inf if run.steps is None else float(run.steps) for run in runs])
    try:
        return critical_batch.fit_critical_batch(batch_N, missed_N, met_N)
    except ConfigError as error:
        return str(error)


def _missed(grid: Grid, run: LearningCell) -> int:
    """Updates at the last evaluation that missed the target."""
    samples = run.samples_used if run.steps is None else run.samples_after or 0
    return grid.step_at(samples, run.batch)


def _by_hyperbola(fit: critical_batch.CriticalBatch | str) -> CriticalBatch:
    how = (
        "steps to target fitted by S_min (1 + B_crit / B), 95 % by profile likelihood "
        "(McCandlish et al. 2018, Shallue et al. 2019)"
    )
    if isinstance(fit, str):
        return CriticalBatch(way="hyperbola", batch=None, how=how, reason=fit)
    return CriticalBatch(way="hyperbola", batch=fit.batch, how=how, reason="")


def _by_noise(
    learned: tuple[LearningCell, ...], fit: critical_batch.CriticalBatch | str
) -> CriticalBatch:
    """The gradient noise scale at the batch size nearest to the critical one of the fit."""
    nearest = "its own noise scale" if isinstance(fit, str) else "the hyperbola's critical batch"
    how = (
        "tr(Σ) / |G|² over the last third of each run that met the target (McCandlish et al. "
        f"2018), 95 % over seeds; of the batch size nearest to {nearest}"
    )
    scales: dict[int, list[float | None]] = {}
    for run in learned:
        if not run.is_trial and run.steps is not None:
            scales.setdefault(run.batch, []).append(run.noise_scale)
    found = noise_scales_by_batch(scales)
    if not found:
        reason = "no batch size has two runs that met the target with a noise scale"
        return CriticalBatch(way="noise scale", batch=None, how=how, reason=reason)
    of_batch = nearest_batch(found, None if isinstance(fit, str) else fit.batch.mid)
    return CriticalBatch(
        way="noise scale",
        batch=found[of_batch],
        how=how,
        reason="",
        of_batch=of_batch,
        by_batch=tuple(found.items()),
    )


def _by_branching(
    branching: Branching, chosen: tuple[Chosen, ...], failed: dict[str, str]
) -> CriticalBatch:
    """The latest step at which all branches were made."""
    branches = branching.read(chosen)
    how = (
        "a run branched into larger batches from one checkpoint, smoothed held-out loss after two "
        "more epochs within 0.01 of every smaller one; between two batch sizes that were tried "
        "(Merrill et al. 2025)"
    )
    for step in sorted({branch.key.step for branch in branches}, reverse=True):
        losses = {one.key.batch: one.loss for one in branches if one.key.step == step}
        known = {batch: loss for batch, loss in losses.items() if loss is not None}
        if len(known) == len(losses):
            where = f"{how}; branched at step {step}"
            found = branched_critical_batch(known)
            return CriticalBatch(way="branching", batch=found, how=where, reason="")
    reasons = (failed[one.key.name] for one in branches if one.key.name in failed)
    reason = branching.why_not(chosen) or next(reasons, "out of budget")
    return CriticalBatch(way="branching", batch=None, how=how, reason=reason)


def _step_time(timed: tuple[TimingCell, ...], num_rows: int) -> StepTimeModel | None:
    known = [it for it in timed if it.step_s is not None and not it.is_weak]
    cells = [_model_cell(it, mean_rows(it.batch, num_rows)) for it in known]
    try:
        model = fit_step_time(cells, cores=num_cores())
        error, worst = left_out_errors(cells, cores=num_cores())
    except ConfigError:
        return None
    us = {"fixed": model.fixed_s, "row": model.row_s, "worker": model.worker_s}
    return StepTimeModel(
        formula=(
            "fixed + row x rows / min(processes that computed, cores) + worker x workers among them"
        ),
        constants_us={name: 1e6 * seconds for name, seconds in us.items()},
        held_out_error=error,
        worst_error=worst,
        predicted=tuple(
            (it.batch, it.workers, model.seconds(cell.rows, cell.processes, cell.workers))
            for it, cell in zip(known, cells, strict=True)
        ),
    )


def _model_cell(timing: TimingCell, rows: float) -> Cell:
    """A step of the plan that was the commonest, by those that computed it."""
    plan = timing.plans[0]
    workers = sum(name != "server" for name in plan.assignment)
    return Cell(rows, len(plan.assignment), workers, plan.step_s)


def _cost(peer: PeerCell, cells: tuple[GridCell, ...]) -> CostLine:
    """How many workers beat `peer` to the target at its batch size."""
    times = {
        it.workers: it.time_s.mid
        for it in cells
        if it.batch == peer.batch and it.time_s is not None
    }
    assert peer.time_s is not None
    return CostLine(
        peer=peer.peer,
        batch=peer.batch,
        workers=crossover(times, peer.time_s),
        tried=tuple(sorted(times)),
        how="steps times seconds a step",
    )


def _sentence(run: FullRun) -> str:
    key, learning = run.key, run.key.learning
    by = {0: "one core", 1: "1 worker"}.get(key.workers, f"{key.workers} workers")
    what = f"batch {learning.batch:,}, {by}, seed {learning.seed}"
    if run.expected is None:
        return f"{what}: not timed"
    expected = f"{run.expected.low:.3g} to {run.expected.high:.3g} s"
    if run.seconds is None:
        made = "it missed the target" if run.num_digests else "not made"
        return f"{what}: {made}; expected {expected}"
    bits = "" if run.same_bits else "; ITS WEIGHTS DIFFER from those without workers"
    lies = "inside" if run.is_inside else "OUTSIDE"
    return f"{what}: {run.seconds:.3g} s, {lies} of the expected {expected}{bits}"


def _warnings(found: Collected) -> Iterator[str]:
    schedule = found.grid.plan.config.schedule.type
    if schedule != "constant":
        yield (
            f"the schedule is {schedule}: it is stretched over all samples a run may use, so steps "
            "to target depend on how many those are"
        )
    edge = [f"{choice.batch:,}" for choice in found.chosen() if choice.is_at_edge]
    if edge and found.grid.plan.rates:
        yield f"the best rate is the lowest or highest tried at batch {', '.join(edge)}"
    if elsewhere := _elsewhere(found):
        how = changed(next(iter(elsewhere.values())), _place(found))
        yield (
            "runs that were made elsewhere than the times, with the same bits: "
            f"{len(elsewhere)}, {how}"
        )
    for name, failure in sorted(found.failed.items()):
        yield f"{name}: {failure}"


def _place(found: Collected) -> dict[str, str]:
    """Where was timed; where nothing was, where this is concluded."""
    dtype = found.grid.plan.config.train.dtype
    return timed_in(found.grid, found.directory) or environment(dtype)


def _elsewhere(found: Collected) -> dict[str, dict[str, str]]:
    """The runs that were not made where was timed, by name."""
    here = _place(found)
    runs = recorded_in(found.directory)
    return {name: there for name, there in runs.items() if changed(there, here)}
