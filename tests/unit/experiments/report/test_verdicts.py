"""What a person would write of planted findings, and the figures behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distsgd.experiments.findings import CriticalBatch, Findings, PeerCell, TimedPlan
from distsgd.experiments.report.verdicts import Verdict, verdicts
from distsgd.statistics.intervals import Interval
from tests.unit.experiments.planted import Plant, bare, findings

UNREACHED = dict.fromkeys(Plant().batches, "target not reached")


MIXED = (
    TimedPlan(assignment=("worker 0", "worker 1"), num_pairs=9, step_s=1e-4),
    TimedPlan(assignment=("server",), num_pairs=3, step_s=2e-4),
)


def _peer(**changes: Any) -> PeerCell:
    return replace(findings().peers[0], **changes)


def _timed(workers: int, **changes: Any) -> Findings:
    found = findings()
    cells = (replace(c, **changes) if c.workers == workers else c for c in found.timings)
    return replace(found, timings=tuple(cells))


SITUATIONS = {
    "workers win": (
        findings(),
        0,
        (
            "The fastest way to test_accuracy>=0.95 was batch 64 with 2 workers: 98.6 ms (86.8 to "
            "110), 229 steps of 431 µs; one core's best is 139 ms (123 to 156), 229 steps of 609 "
            "µs, at the same batch; scikit-learn 1.9.0 needs 181 ms at batch 64 on all cores, "
            "which one core beats already."
        ),
    ),
    "one core wins": (
        findings(Plant(exchange_us=5000.0)),
        0,
        (
            "was one core at batch 64: 139 ms (123 to 156), 229 steps of 609 µs; the best with "
            "workers is batch 512 with 2 workers: 595 ms"
        ),
    ),
    "the order is open": (
        findings(Plant(spread=0.35)),
        0,
        "at the same batch (their pairs are inconclusive); scikit-learn",
    ),
    "the order is open between two batch sizes": (
        findings(Plant(spread=0.3, exchange_us=1200.0)),
        0,
        "(their intervals overlap: inconclusive)",
    ),
    "pairs decide the order where the intervals of times overlap": (
        findings(Plant(spread=0.2)),
        0,
        "229 steps of 609 µs, at the same batch; scikit-learn",
    ),
    "nothing reached": (
        findings(Plant(missing=UNREACHED)),
        0,
        (
            "No batch size reached test_accuracy>=0.95 within 400,000 samples (every batch size: "
            "target not reached)"
        ),
    ),
    "no peers": (findings(Plant(peers=())), 0, "nothing outside this project was measured."),
    "a peer that no number beats": (
        findings(Plant(peers=("sklearn", "torch"), exchange_us=900.0)),
        0,
        (
            "PyTorch 1.9.0 needs 83.6 ms at batch 64 on all cores, not beaten by one core, 1 "
            "worker or 2 workers."
        ),
    ),
    "a peer without a time": (
        findings(peers=(_peer(time_s=None, steps=None, reason="target not reached"),)),
        0,
        "scikit-learn 1.9.0 has no time (target not reached).",
    ),
    "two workers pay from a batch on": (
        findings(),
        1,
        (
            "A second worker pays at batch 64 and above: a step is 1.41 times (1.36 to 1.47) as "
            "fast as one core's 609 µs at batch 64 and 1.96 times (1.88 to 2.04) as fast as one "
            "core's 13.0 ms at the whole batch; time is lost at batch 8 and below: a step takes "
            "147 µs instead of one core's 41.0 µs at batch 1 and 178 µs instead of one core's 104 "
            "µs at batch 8 (10 comparisons with one core were made in all, each at 95 %)."
        ),
    ),
    "inconclusive over one core": (
        findings(Plant(spread=0.35)),
        1,
        (
            "the pairs are inconclusive at batch 64: a step is 1.41 times (0.92 to 1.91) as fast "
            "as one core's 609 µs"
        ),
    ),
    "two workers never pay": (
        findings(Plant(exchange_us=50_000.0)),
        1,
        (
            "A second worker is clearly faster at none of the 5 batch sizes that were timed; "
            "time is lost at every batch size"
        ),
    ),
    "nothing is decided": (
        findings(Plant(batches=(8, 64), spread=0.9)),
        1,
        (
            "A second worker is clearly faster at none of the 2 batch sizes that were timed; "
            "the pairs are inconclusive at every batch"
        ),
    ),
    "no step has an interval": (
        replace(findings(), timings=tuple(replace(c, step_s=None) for c in findings().timings)),
        2,
        "Where a step spends its time was not measured.",
    ),
    "some steps were not timed": (
        _timed(2, speed_up=None, step_s=None, reason="out of budget"),
        4,
        "no interval of seconds a step with 2 workers at every batch size (out of budget)",
    ),
    "no step was timed": (
        replace(
            findings(peers=()),
            cells=tuple(replace(c, step_s=None, time_s=None) for c in findings().cells),
        ),
        0,
        "is not known, since steps were not timed; the fewest are 68, at the whole batch",
    ),
    "one core only": (
        findings(Plant(workers=(0,))),
        1,
        (
            "What a second worker buys was not measured: the experiment asked for no more than "
            "one core."
        ),
    ),
    "not timed": (
        _timed(2, speed_up=None, step_s=None, reason="out of budget"),
        1,
        "A second worker was not timed at any batch size.",
    ),
    "three workers stand for two": (
        findings(Plant(workers=(0, 3))),
        1,
        "3 workers pay at batch 64 and above: a step is 1.",
    ),
    "why": (
        findings(Plant(exchange_us=400.0)),
        2,
        (
            "The step says why: at batch 1 a step of 2 workers takes 437 µs (one core: 41.0 µs), "
            "82 % exchanging, while its processes waited 0.6 % of it for the slowest of them; at "
            "the whole batch a step of 2 workers takes 6.91 ms (one core: 13.0 ms), 94 % "
            "computing, while its processes waited 56 % of it for the slowest of them."
        ),
    ),
    "the plan left them out": (
        _timed(2, plans=(TimedPlan(assignment=("server",), num_pairs=5, step_s=1e-4),)),
        2,
        "at batch 1 the plan left the step to the server, 147 µs (one core: 41.0 µs)",
    ),
    "the plans were mixed": (
        _timed(2, plans=MIXED),
        2,
        (
            "at batch 1 a step of 2 workers (mixed: worker 0 and worker 1 in 9 of 12, server in 3 "
            "of 12 pairs) takes 147 µs"
        ),
    ),
    "more workers": (
        findings(Plant(workers=(0, 1, 2, 4))),
        2,
        "4 workers are clearly faster than 2 at batch 8 and above.",
    ),
    "more workers for nothing": (
        findings(Plant(workers=(0, 2, 3), spread=0.4)),
        2,
        "3 workers are clearly faster than 2 at none of the 5 batch sizes that were timed.",
    ),
    "one core's step": (
        findings(Plant(workers=(0,))),
        2,
        "On one core a step at the whole batch takes 13.0 ms, 100 % of it computing.",
    ),
    "steps fall": (
        findings(),
        3,
        (
            "From batch 1 to the whole batch, 1,437 times the rows a step, the steps to target "
            "fall from 10,860 to 68, 160 times fewer; the critical batch size is 162 (123 to 201) "
            "by the hyperbola (the whole way to the target), 180 (137 to 223) by the noise scale "
            "(the last third of the runs at batch 64) and between 150 and 246 by branching (one "
            "step of a run; two sizes that were tried)."
        ),
    ),
    "rows a step are those of an epoch with its short last batch": (
        findings(Plant(batches=(64, 1000))),
        3,
        "From batch 64 to batch 1,000, 12 times the rows a step",
    ),
    "one batch": (
        findings(Plant(batches=(64,))),
        3,
        "Only batch 64 reached the target, in 229 steps, so what a larger batch saves is not known",
    ),
    "two ways, one without an upper end": (
        findings(
            critical=(
                CriticalBatch(way="hyperbola", batch=Interval(10, 20, 30), how="", reason=""),
                CriticalBatch(way="branching", batch=Interval(90, 99, 1e999), how="", reason=""),
            )
        ),
        3,
        (
            "the critical batch size is 20 (10 to 30) by the hyperbola (the whole way to the "
            "target) and at least 90 by branching (one step of a run; the largest)."
        ),
    ),
    "no way": (
        findings(
            critical=(CriticalBatch(way="branching", batch=None, how="", reason="out of budget"),)
        ),
        3,
        "a critical batch size was not found (branching: out of budget).",
    ),
    "all is known": (
        findings(Plant(workers=(0, 2))),
        4,
        (
            "Nothing that was asked for is left open: 1 run in full lies within the stated "
            "interval and 40 digests compared, all equal."
        ),
    ),
    "inconclusive": (
        findings(),
        4,
        (
            "Still open: 1 worker against one core: inconclusive at batch 512 (385 ms, one core "
            "376 ms) and the whole batch (890 ms, one core 883 ms)"
        ),
    ),
    "missed": (
        findings(Plant(missing={1: "out of budget", 8: "diverged"})),
        4,
        (
            "Still open: batch 1 without steps to target (out of budget); batch 8 without steps "
            "to target (diverged)"
        ),
    ),
    "some seeds only": (
        replace(
            findings(),
            cells=tuple(
                replace(c, steps=None, time_s=None, reason="out of budget", num_reached=2)
                if c.batch == 8
                else c
                for c in findings().cells
            ),
        ),
        4,
        "batch 8 without steps to target (out of budget, 2 of 3 seeds reached it)",
    ),
    "edges and what was left out": (
        findings(Plant(workers=(0, 2), edges=frozenset({64})), left_out=("Batch 2 was left out.",)),
        4,
        (
            "Still open: the best rate at batch 64 lies at the edge of its range, so a better one "
            "may exist; Batch 2 was left out; checked:"
        ),
    ),
    "no full runs": (findings(products=(), products_hold=None), 4, "no run was made in full to"),
    "no digests": (findings(num_digests=0), 4, "no digests of weights were compared"),
}


@pytest.mark.parametrize(("found", "place", "said"), SITUATIONS.values(), ids=SITUATIONS)
def test_verdict_says_what_was_planted(found: Findings, place: int, said: str) -> None:
    told = verdicts(found)
    assert said in told[place].sentence
    assert len(told) == 5
    assert told[place].figures


EVERY = {
    "planted": findings(),
    "bare": bare(),
    "one core": findings(Plant(workers=(0,))),
    "workers only": findings(Plant(workers=(2,))),
    "one batch": findings(Plant(batches=(64,), peers=())),
    "nothing reached": findings(Plant(missing=UNREACHED)),
    "many": findings(Plant(workers=(0, 1, 2, 4, 8, 16), peers=("sklearn", "torch", "jax"))),
}


@pytest.mark.parametrize("found", EVERY.values(), ids=EVERY)
def test_verdicts_are_five_whole_sentences_whatever_is_missing(found: Findings) -> None:
    told = verdicts(found)
    assert len(told) == 5
    for one in told:
        assert one.sentence[0].isupper()
        assert one.sentence.endswith(".")
        assert not any(odd in one.sentence for odd in ("nan", "None", "  ", ";;", "..", "()"))


def _alarms(found: Findings) -> list[Verdict]:
    return [one for one in verdicts(found) if one.is_alarm]


def test_verdict_begins_with_full_runs_outside_of_their_interval() -> None:
    told = verdicts(findings(products_hold=False))
    assert told[0].is_alarm
    assert told[0].sentence.startswith("Not all runs made in full lie within the interval")
    assert "batch 64, 2 workers: 0.13 s in full, expected 0.12 to 0.14 s" in told[0].sentence
    assert told[0].figures["products_hold"] is False
    assert len(told) == 6


def test_verdict_begins_with_digests_that_differ() -> None:
    told = verdicts(findings(digests_equal=False, products_hold=False))
    assert told[0].sentence.startswith("Of 40 digests of weights not all are equal")
    assert [one.is_alarm for one in told] == [True, True, False, False, False, False, False]
    assert "all equal" not in told[-1].sentence


def test_verdict_raises_no_alarm_where_nothing_was_checked() -> None:
    assert not _alarms(findings(products_hold=None, num_digests=0))
    assert not _alarms(findings())


def test_verdict_never_says_a_ratio_without_the_seconds_of_one_core() -> None:
    for found in EVERY.values():
        sentence = verdicts(found)[1].sentence
        assert sentence.count(" as fast as") == sentence.count(" as fast as one core's ")
