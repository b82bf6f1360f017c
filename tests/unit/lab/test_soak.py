"""The checker of a soak: what a history may not be; what a gauge and a mark see."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distsgd.errors import CheckpointError
from distsgd.lab.processes import Gauge, marked_processes
from distsgd.lab.soak import (
    LastSteps,
    Round,
    Soak,
    has_settled,
    history_problems,
    is_enough,
    summary,
)
from distsgd.run.verify import Record


def record(rows: list[dict[str, Any]], steps: int) -> Record:
    return Record(steps, {}, rows, "")


def good(count: int = 9) -> list[dict[str, Any]]:
    """Three steps an epoch, of 4, 4 and 2 rows."""
    batches = [4, 4, 2] * count
    return [
        {"step": i + 1, "samples": sum(batches[: i + 1]), "epoch": (i + 1) / 3}
        for i in range(count)
    ]


def changed(at: int, **fields: Any) -> list[dict[str, Any]]:
    rows = good()
    rows[at] |= fields
    return rows


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_good_history_has_no_problem(count: int) -> None:
    assert list(history_problems(record(good(count), count))) == []


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (good()[:-1], "should have step 8 there and has 8"),
        ([*good()[:4], *good()[3:]], "should have step 5 there and has 4"),
        ([*good()[:4], *good()[5:]], "should have step 5 there and has 6"),
        (changed(8, samples=28), r"the epoch up to step 9 used 8 rows"),
        (changed(4, samples=14), "step 5 used 0 samples"),
    ],
)
def test_history_that_cannot_be_is_told(rows: list[dict[str, Any]], problem: str) -> None:
    assert any(problem in found for found in history_problems(record(rows, 9)))


def test_history_without_rows_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no rows"):
        list(history_problems(record([], 3)))


def test_marked_processes_are_found_by_their_environment_and_gone_when_they_ended() -> None:
    mark = f"DISTSGD_TEST={os.getpid()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, name: value}
    )
    assert list(marked_processes(mark)) == [process.pid]
    process.communicate(b"\n", timeout=20)
    assert marked_processes(mark) == {}


def test_gauge_tells_growth_from_the_second_quarter_to_the_last(tmp_path: Path) -> None:
    gauge = Gauge()
    assert gauge.growth() == (0, 0)
    with contextlib.ExitStack() as kept:
        for i in range(16):
            if i >= 12:
                # Memory of its own: what the interpreter allocates may be lying about already.
                memory = kept.enter_context(mmap.mmap(-1, 8 << 20))
                memory.write(b"x" * (8 << 20))
                kept.enter_context((tmp_path / str(i)).open("w"))
            gauge.look(os.getpid())
        grown, opened = gauge.growth()
    assert grown > 24 << 20
    assert opened == 4
    gauge.look(2**31 - 1)


def test_gauge_compares_only_looks_at_the_same_number_of_workers() -> None:
    gauge = Gauge()
    for _ in range(8):
        gauge.look(os.getpid(), 2)
    with mmap.mmap(-1, 64 << 20) as memory:
        memory.write(b"x" * (64 << 20))
        for _ in range(8):
            gauge.look(os.getpid(), 0)
        grown, opened = gauge.growth()
    assert grown < 32 << 20
    assert opened == 0


@pytest.mark.parametrize(
    ("before", "now", "settled"),
    [
        ((0, 0), (0, 0), False),
        ((0, 0), (50, 0), True),  # Nothing is held out: a checkpoint is all there will be.
        ((0, 0), (50, 40), True),
        ((40, 30), (40, 30), False),
        ((40, 30), (50, 30), False),
        ((40, 30), (40, 60), False),
        ((40, 30), (50, 50), True),
    ],
)
def test_process_has_settled_after_its_first_checkpoint_and_evaluation(
    before: tuple[int, int], now: tuple[int, int], *, settled: bool
) -> None:
    assert has_settled(LastSteps(*before), LastSteps(*now)) is settled


def test_summary_counts_and_names_the_seed_that_failed() -> None:
    rounds = [
        Round(3, workers=[2, 1], steps=9, faults=["kill worker at step 3", "x: kill server at y"]),
        Round(4, workers=[2], steps=9, resumes=1, problems=["it hung"]),
    ]
    found = summary(rounds)
    assert found["faults"] == 2
    assert found["kinds"] == "kill worker (1), kill server (1)"
    assert (found["steps"], found["resumes"], found["changes_of_workers"]) == (18, 1, 1)
    assert found["failed_seed"] == 4
    assert summary(rounds[:1])["failed_seed"] is None
    assert (found["next_seed"], summary(rounds[:1])["next_seed"]) == (4, 4)


@pytest.mark.parametrize(
    ("rounds", "faults", "enough"),
    [(None, None, False), (2, None, True), (3, None, False), (None, 3, True), (None, 4, False)],
)
def test_soak_ends_after_as_many_rounds_or_faults_as_were_asked_for(
    rounds: int | None, faults: int | None, *, enough: bool
) -> None:
    what = Soak(Path("digits.toml"), (), 1.0, rounds, faults, 100, 0)
    assert is_enough(what, [Round(0, faults=["a"]), Round(1, faults=["b", "c"])]) is enough
