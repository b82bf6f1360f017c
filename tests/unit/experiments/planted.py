"""Findings that were never measured: a law of steps and a law of step times, told as found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distsgd.experiments.findings import (
    CostLine,
    CriticalBatch,
    Findings,
    GridCell,
    LearningCell,
    PeerCell,
    StepTimeModel,
    TimedPlan,
    TimingCell,
)
from distsgd.statistics.intervals import Interval

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What is planted: laws, and what is missing.

    Attributes:
        row_us, fixed_us, exchange_us: Of a step: each row's, each step's, each step's with workers.
        imbalance: What the processes wait for the slowest of them, in parts of its computing; that
            lies within a step and is no part of its sum.
        missing: Reasons by batch: the target was not reached there.
        spread: Half the relative width of every interval.
    """

    batches: Sequence[int] = (1, 8, 64, 512, 1437)
    workers: Sequence[int] = (0, 1, 2)
    num_rows: int = 1437
    least_steps: float = 60.0
    critical: float = 180.0
    row_us: float = 9.0
    fixed_us: float = 30.0
    exchange_us: float = 110.0
    imbalance: float = 0.6
    missing: Mapping[int, str] = field(default_factory=dict)
    edges: frozenset[int] = frozenset()
    spread: float = 0.04
    peers: Sequence[str] = ("sklearn",)

    def num_steps(self, batch: int) -> int:
        return round(self.least_steps * (1 + self.critical / batch))

    def rate(self, batch: int) -> float:
        return RATES[min(len(RATES) - 1, 1 + self.batches.index(batch))]

    def phases_s(self, batch: int, workers: int) -> dict[str, float]:
        compute = 1e-6 * self.row_us * batch / max(1, workers)
        phases = {"read": 2e-6 + 1e-8 * batch, "compute": compute, "exchange": 0.0}
        phases |= {"sum": 0.0, "update": 1e-6 * self.fixed_us, "wait": 0.0}
        if workers:
            shares = {"exchange": 0.9, "sum": 0.1}
            phases |= {name: 1e-6 * self.exchange_us * part for name, part in shares.items()}
            phases["wait"] = self.imbalance * compute
        return phases

    def step_s(self, batch: int, workers: int) -> float:
        phases_s = self.phases_s(batch, workers)
        return sum(phases_s.values()) - phases_s["wait"]

    def speed_up(self, batch: int, workers: int) -> float:
        return self.step_s(batch, 0) / self.step_s(batch, workers)

    def within(self, mid: float, wider: float = 1.0) -> Interval:
        width = self.spread * wider
        return Interval(mid * (1 - width), mid, mid * (1 + width))


def findings(plant: Plant | None = None, **changes: Any) -> Findings:
    """What an experiment with these laws is told to have found; `changes` replace whole fields."""
    it = plant or Plant()
    told: dict[str, Any] = {
        "title": "digits, 64-64-10 network",
        "command": "distsgd experiment scale digits.toml --batch-sizes 1,8,64,512,full",
        "made": "2026-11-30 15:00 UTC",
        "num_rows": it.num_rows,
        "num_test_rows": 360,
        "num_parameters": 4810,
        "num_cores": 2,
        "target": "test_accuracy>=0.95",
        "batches": tuple(it.batches),
        "workers": tuple(it.workers),
        "grid_samples": 512,
        "most_samples": 400_000,
        "learning": tuple(_learning(it)),
        "timings": tuple(_timings(it)),
        "cells": tuple(_grid(it)),
        "fit": (it.least_steps, it.critical),
        "critical": _critical(it),
        "step_time": _model(it),
        "peers": tuple(_peer(it, name, number) for number, name in enumerate(it.peers)),
        "cost": tuple(_cost(it, name, number) for number, name in enumerate(it.peers)),
        "products": ("batch 64, 2 workers: 0.13 s in full, expected 0.12 to 0.14 s",),
        "products_hold": True,
        "num_digests": 40,
        "digests_equal": True,
        "left_out": (),
        "warnings": (),
        "environment": {"machine": "2 cores, AMD EPYC", "distsgd": "0.4.0", "numpy": "2.4.6"},
        "configuration": '[data]\nname = "digits" # <b>&\n\n[batch]\nsize = 64\n',
    }
    return Findings(**(told | changes))


def _learning(it: Plant) -> list[LearningCell]:
    cells = []
    for batch in it.batches:
        cells += [_learned(it, batch, rate, 1000 + i, True) for i, rate in enumerate(RATES)]
        cells += [_learned(it, batch, it.rate(batch), seed, False) for seed in range(3)]
    return cells


def _learned(it: Plant, batch: int, rate: float, seed: int, is_trial: bool) -> LearningCell:  # noqa: FBT001
    off = abs(math.log(rate / it.rate(batch)))
    steps = round(it.num_steps(batch) * (1 + off) * (1 + 0.05 * (seed % 3)))
    reason = it.missing.get(batch, "")
    if is_trial and rate > 4 * it.rate(batch):
        reason = reason or "diverged"
    elif off > 2:
        reason = reason or "given up"
    until = None if reason else steps * batch
    used = (until or 40_000) + 0
    places = [max(1, round(used * (i + 1) / 60)) for i in range(60)]
    return LearningCell(
        batch=batch,
        rate=rate,
        seed=seed,
        is_trial=is_trial,
        is_chosen=rate == it.rate(batch),
        samples_after=None if until is None else max(0, until - 512),
        samples_until=until,
        steps=None if reason else steps,
        samples_used=used,
        reason=reason,
        noise_scale=it.critical * 0.9,
        digest="c0ffee",
        configuration="ab12",
        seconds=steps * it.step_s(batch, 0),
        curve=tuple((place, 0.95 - 0.8 / (1 + i)) for i, place in enumerate(places)),
        losses=tuple((place, 0.1 + 2.2 * math.exp(-5 * place / used)) for place in places),
    )


def _timings(it: Plant) -> list[TimingCell]:
    return [
        TimingCell(
            batch=batch,
            base_batch=batch,
            workers=workers,
            is_weak=False,
            step_s=it.within(it.step_s(batch, workers)),
            baseline_s=it.within(it.step_s(batch, 0)),
            speed_up=it.within(it.speed_up(batch, workers)) if workers else None,
            efficiency=_efficiency(it, batch, workers),
            phases_s=it.phases_s(batch, workers),
            num_pairs=5,
            plans=_plans(it, batch, workers),
            reason="",
        )
        for batch in it.batches
        for workers in it.workers
    ]


def _efficiency(it: Plant, batch: int, workers: int) -> Interval | None:
    (plan,) = _plans(it, batch, workers)
    speed_up = it.speed_up(batch, workers)
    return it.within(speed_up / len(plan.assignment)) if workers else None


def _plans(it: Plant, batch: int, workers: int) -> tuple[TimedPlan, ...]:
    """One worker shares the step with the server, more of them compute it alone."""
    who = {0: ("server",), 1: ("server", "worker 0")}
    assignment = who.get(workers) or tuple(f"worker {i}" for i in range(workers))
    return (TimedPlan(assignment=assignment, num_pairs=5, step_s=it.step_s(batch, workers)),)


def _grid(it: Plant) -> list[GridCell]:
    return [_cell(it, batch, workers) for batch in it.batches for workers in it.workers]


def _cell(it: Plant, batch: int, workers: int) -> GridCell:
    reason = it.missing.get(batch, "")
    steps, step_s = it.num_steps(batch), it.step_s(batch, workers)
    speed_up = it.within(it.speed_up(batch, workers))
    verdict = "pass" if speed_up.low > 1 else "fail" if speed_up.high < 1 else "inconclusive"
    return GridCell(
        batch=batch,
        workers=workers,
        rate=it.rate(batch),
        rate_at_edge=batch in it.edges,
        num_seeds=3,
        num_reached=0 if reason else 3,
        steps=None if reason else it.within(steps, 2),
        steps_range=None if reason else (round(steps * 0.93), round(steps * 1.1)),
        step_s=it.within(step_s),
        time_s=None if reason else it.within(steps * step_s, 3),
        full_run_s=steps * step_s if (batch, workers) == (64, 2) and not reason else None,
        plans=_plans(it, batch, workers),
        efficiency=_efficiency(it, batch, workers),
        verdict=verdict if workers and not reason else "",
        reason=reason,
    )


def _critical(it: Plant) -> tuple[CriticalBatch, ...]:
    hows = {
        "hyperbola": "Steps to target fitted by S(1 + B/b) (McCandlish 2018, arXiv:1812.06162).",
        "noise scale": "Median of the runs' noise scale, last third (McCandlish 2018).",
        "branching": "A run branched at three steps into five batch sizes (Merrill 2025).",
    }
    return tuple(
        CriticalBatch(
            way=way,
            batch=it.within(it.critical * (0.9 + 0.1 * i), 6),
            how=how,
            reason="",
            of_batch=64 if way == "noise scale" else None,
        )
        for i, (way, how) in enumerate(hows.items())
    )


def _model(it: Plant) -> StepTimeModel:
    pairs = [(batch, workers) for batch in it.batches for workers in it.workers]
    return StepTimeModel(
        formula="row * rows / workers + exchange * (workers > 0) + update",
        constants_us={"row": it.row_us, "exchange": it.exchange_us, "update": it.fixed_us},
        held_out_error=0.06,
        worst_error=0.14,
        predicted=tuple((batch, w, (1.02 + 0.05 * w) * it.step_s(batch, w)) for batch, w in pairs),
    )


def _peer(it: Plant, name: str, number: int) -> PeerCell:
    batch = it.batches[len(it.batches) // 2]
    step_s = it.step_s(batch, 0) * (1.3, 0.6, 3.0)[number % 3]
    steps = it.num_steps(batch)
    return PeerCell(
        peer=name,
        version="1.9.0",
        batch=batch,
        rate=it.rate(batch),
        step_s=step_s,
        steps=steps,
        time_s=steps * step_s,
        reason="",
    )


def _cost(it: Plant, name: str, number: int) -> CostLine:
    peer = _peer(it, name, number)
    beating = [w for w in it.workers if it.step_s(peer.batch, w) < (peer.step_s or 0.0)]
    how = "one core is faster already" if 0 in beating else "the workers share a mini-batch"
    workers = min(beating, default=None)
    return CostLine(peer=name, batch=peer.batch, workers=workers, tried=tuple(it.workers), how=how)


def bare() -> Findings:
    """Of an experiment that was ended before it began."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("learning", "timings", "cells", "critical", "peers", "cost", "products"), ()
    )
    nothing |= {"fit": None, "step_time": None, "products_hold": None, "num_digests": 0}
    return findings(batches=(), workers=(), **nothing)
