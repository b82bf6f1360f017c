"""What an experiment takes at most has all its parts, and what a budget leaves out is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distsgd.experiments.estimate import PEER_START_S, PEER_STEP_S, Speed, estimate, within_budget
from distsgd.experiments.plan import LEAST_PAIRS, Grid, ScalePlan
from distsgd.experiments.scale import Scale
from tests.unit.experiments.rows import NUM_ROWS, NUM_TEST_ROWS, plan_of, write_rows

SPEED = Speed(NUM_TEST_ROWS, {4: 1e-3, 16: 2e-4, NUM_ROWS: 1e-4})


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ScalePlan:
    rows = write_rows(tmp_path_factory.mktemp("rows"))
    peers = ("sklearn", "torch")
    return plan_of(rows, batches=(4, 16, "full"), seeds=4, num_pairs=7, peers=peers)


def seconds(plan: ScalePlan, **changes: Any) -> float:
    return estimate(Grid.of(replace(plan, **changes), NUM_ROWS), SPEED).seconds


def test_all_parts_are_in_the_whole(plan: ScalePlan) -> None:
    found = estimate(Grid.of(plan, NUM_ROWS), SPEED)
    parts = (found.learning_s, found.timing_s, found.full_s, found.branches_s, found.peers_s)
    assert min(parts) > 0
    assert found.seconds == sum(parts)
    assert seconds(plan, peers=()) == pytest.approx(found.seconds - found.peers_s)


def test_a_peer_counts_each_step_sample_and_evaluation_of_each_seed(plan: ScalePlan) -> None:
    samples, grid = 6 * NUM_ROWS, Grid.of(plan, NUM_ROWS)
    one_s = 0.0
    for batch, sample_s, evaluations in ((4, 1e-3, 60), (16, 2e-4, 60), (NUM_ROWS, 1e-4, 6)):
        one_s += samples * sample_s + samples / batch * PEER_STEP_S
        one_s += evaluations * NUM_TEST_ROWS * 1e-4
    found = estimate(grid, SPEED)
    assert found.peers_s == pytest.approx(2 * (PEER_START_S + 4 * one_s))


def test_evaluations_take_their_time(plan: ScalePlan) -> None:
    grid = Grid.of(plan, NUM_ROWS)
    many = estimate(grid, replace(SPEED, num_test_rows=1_000_000))
    few = estimate(grid, replace(SPEED, num_test_rows=0))
    assert many.learning_s > few.learning_s
    assert many.branches_s > few.branches_s


PAIRS = {"num_pairs": LEAST_PAIRS}
ROOM_FOR: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"num_pairs": 6}, ["timed pairs a cell: 6 instead of 7"]),
    ({**PAIRS, "seeds": 3}, ["timed pairs a cell: 5", "seeds: 3 instead of 4"]),
    (
        {**PAIRS, "seeds": 2, "peers": ("sklearn",)},
        ["timed pairs a cell: 5", "seeds: 2 instead of 4", "peer torch: "],
    ),
    (
        {**PAIRS, "seeds": 1, "peers": (), "batches": (16, "full")},
        [
            *("timed pairs a cell: 5", "seeds: 1 instead of 4, so steps to target have no spread"),
            *("peer sklearn: ", "peer torch: ", "batch size 4: its runs take longest (1000.0 us"),
        ],
    ),
]


@pytest.mark.parametrize(("kept", "said"), ROOM_FOR)
def test_a_budget_leaves_out_one_thing_after_the_other_and_says_each(
    plan: ScalePlan, kept: dict[str, Any], said: list[str]
) -> None:
    budget_s = seconds(plan, **kept)
    found, its = within_budget(replace(plan, budget_s=budget_s), NUM_ROWS, SPEED)
    assert its.seconds == budget_s
    assert {name: getattr(found, name) for name in kept} == kept
    assert len(found.left_out) == len(said)
    assert all(text.startswith(start) for text, start in zip(found.left_out, said, strict=True))


def test_a_budget_that_nothing_fits_into_says_so(plan: ScalePlan) -> None:
    found, _ = within_budget(replace(plan, budget_s=1.0), NUM_ROWS, SPEED)
    assert found.left_out[-1].startswith("what is not made when its 1 s are spent")


def test_what_the_budget_leaves_out_is_said_as_an_experiment_begins(tmp_path: Path) -> None:
    said: list[str] = []
    plan = plan_of(write_rows(tmp_path), budget_s=1.0)
    Scale(tmp_path / "experiment", plan, tmp_path / "cache", said.append).begin()
    assert "the budget leaves out: seeds: 1 instead of 2, so" in "\n".join(said)
