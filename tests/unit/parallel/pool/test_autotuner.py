from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.parallel.pool.autotuner import (
    FEWEST_TRIAL_STEPS,
    FIRST_INTERVAL_STEPS,
    LONGEST_INTERVAL_STEPS,
    MOST_SLOW_STEPS,
    MOST_TRIAL_STEPS,
    SERVER,
    TRIAL_STEPS,
    Assignment,
    AssignmentKind,
    Autotuner,
    Candidate,
    Planner,
    assignments,
    pools,
    with_and_without_spinning,
)

WORKERS = st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True)


@given(num_blocks=st.integers(0, 300), workers=WORKERS)
def test_shares_cover_every_block_once_in_order(num_blocks: int, workers: list[int]) -> None:
    found = list(assignments(num_blocks, tuple(workers)))
    assert [i for assignment in found for i in range(assignment.first, assignment.last)] == list(
        range(num_blocks)
    )
    assert [assignment.worker for assignment in found] == [
        w for w in workers if w in {s.worker for s in found}
    ]
    sizes = [assignment.last - assignment.first for assignment in found]
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)


@given(members=WORKERS, num_blocks=st.integers(1, 64))
def test_ways_differ_and_give_everybody_a_block(members: list[int], num_blocks: int) -> None:
    found = pools(members, num_blocks)
    assert found[0] == (SERVER,)
    assert len(set(found)) == len(found)
    for candidate in found:
        assert len(assignments(num_blocks, candidate)) == len(candidate)
        assert set(candidate) <= {SERVER, *members}


def test_ways_include_all_workers_where_there_are_blocks_for_them() -> None:
    assert pools([0, 1, 2], 8)[-2:] == [(SERVER, 0, 1), (0, 1, 2)]
    assert pools([0, 1, 2, 3, 4], 16)[-1] == (0, 1, 2, 3, 4)
    assert pools([0], 8) == [(SERVER,), (SERVER, 0)]
    assert pools([0, 1], 1) == [(SERVER,)]


def ways(members: list[int], num_blocks: int) -> list[Candidate]:
    return [Candidate(workers) for workers in pools(members, num_blocks)]


def run_plan(plan: Autotuner, cost: dict[Candidate, float], num_steps: int) -> None:
    for _ in range(num_steps):
        plan.observe(cost[plan.candidate])


@pytest.mark.parametrize("fastest", range(3))
def test_measured_plan_finds_the_fastest_way_and_looks_again_later(fastest: int) -> None:
    candidates = ways([0, 1], 8)
    plan = Autotuner(candidates)
    num_trials = TRIAL_STEPS * len(candidates)
    cost = {candidate: 0.01 * (1 + abs(i - fastest)) for i, candidate in enumerate(candidates)}
    run_plan(plan, cost, num_trials)
    assert plan.candidate == candidates[fastest]
    run_plan(plan, cost, FIRST_INTERVAL_STEPS - 1)
    assert plan.candidate == candidates[fastest]
    run_plan(plan, cost, 1)
    changed = {
        candidate: 0.01 * (1 + abs(i - (fastest + 1) % 3)) for i, candidate in enumerate(candidates)
    }
    run_plan(plan, changed, num_trials)
    assert plan.candidate == candidates[(fastest + 1) % 3]


def test_measured_plan_passes_over_first_steps_and_single_slow_ones() -> None:
    candidates = ways([0, 1], 8)
    plan = Autotuner(candidates)
    seconds = [
        [0.015] * TRIAL_STEPS,
        [1.0, 0.01, 0.01, 0.01, 0.03, 0.03],
        [0.014] * TRIAL_STEPS,
    ]
    for times in seconds:
        for time in times:
            plan.observe(time)
    assert plan.candidate == candidates[1]


def test_measured_plan_looks_again_ever_more_rarely() -> None:
    plan = Autotuner(ways([0, 1], 8))
    cost = dict.fromkeys(plan.candidates, 1.0)
    terms: list[int] = []
    length = 0
    while len(terms) < 9:
        was_trying = plan._trying
        run_plan(plan, cost, 1)
        length = 0 if was_trying else length + 1
        if length and plan._trying:
            terms.append(length)
    assert terms[:3] == [FIRST_INTERVAL_STEPS, 2 * FIRST_INTERVAL_STEPS, 4 * FIRST_INTERVAL_STEPS]
    assert terms[-1] == LONGEST_INTERVAL_STEPS


def test_planner_without_members_or_blocks_leaves_all_to_the_server() -> None:
    for kind in ("autotune", "all"):
        planner = Planner("all" if kind == "all" else "autotune", cores=1)
        assert list(planner.assignments(5)) == [Assignment(SERVER, 0, 5)]
        planner.observe(5, 1.0)
        planner.set_members([0, 1])
        assert list(planner.assignments(0)) == []


def test_plan_all_uses_every_member_as_they_come_and_go() -> None:
    planner = Planner("all", cores=1)
    planner.set_members([2, 0])
    assert planner.members == (0, 2)
    assert list(planner.assignments(4)) == [Assignment(0, 0, 2), Assignment(2, 2, 4)]
    planner.set_members([2])
    assert list(planner.assignments(4)) == [Assignment(2, 0, 4)]
    planner.set_members([])
    assert list(planner.assignments(4)) == [Assignment(SERVER, 0, 4)]


def test_planner_measures_each_number_of_blocks_and_set_of_members_until_one_is_new() -> None:
    planner = Planner("autotune", cores=1)
    planner.set_members([0, 1])
    num_ways = len(ways([0, 1], 8))
    for i in range(num_ways * TRIAL_STEPS):
        planner.observe(8, 0.01 * (num_ways - i // TRIAL_STEPS))
    assert list(planner.assignments(8)) == [Assignment(0, 0, 4), Assignment(1, 4, 8)]
    assert list(planner.assignments(4)) == [Assignment(SERVER, 0, 4)]
    planner.set_members([0])
    assert list(planner.assignments(8)) == [Assignment(SERVER, 0, 8)]
    planner.set_members([0, 1])
    assert list(planner.assignments(8)) == [Assignment(0, 0, 4), Assignment(1, 4, 8)]
    planner.forget()
    assert list(planner.assignments(8)) == [Assignment(SERVER, 0, 8)]


def test_short_steps_are_tried_for_longer_and_long_ones_less_often() -> None:
    quick, slow = Autotuner(ways([0], 8)), Autotuner(ways([0], 8))
    cost = {candidate: 1e-4 * (1 + i) for i, candidate in enumerate(quick.candidates)}
    run_plan(quick, cost, 2 * TRIAL_STEPS)
    assert not quick.is_settled
    run_plan(quick, cost, 2 * MOST_TRIAL_STEPS)
    assert quick.is_settled
    assert quick.candidate == quick.candidates[0]
    run_plan(
        slow, {candidate: 10 * seconds for candidate, seconds in cost.items()}, 2 * TRIAL_STEPS
    )
    run_plan(slow, dict.fromkeys(slow.candidates, 1.0), 2 * FEWEST_TRIAL_STEPS)
    assert slow.is_settled


def test_processes_stay_awake_only_where_each_has_a_core() -> None:
    assert with_and_without_spinning((SERVER,), 8) == [Candidate((SERVER,))]
    for workers, cores in (((SERVER, 0), 2), ((0,), 2), ((0, 1), 3)):
        assert with_and_without_spinning(workers, cores)[-1].spin
        assert len(with_and_without_spinning(workers, cores - 1)) == 1


@pytest.mark.parametrize("kind", ["all", "autotune"])
def test_staying_awake_is_tried_and_kept_where_it_is_faster(kind: AssignmentKind) -> None:
    for is_faster in (True, False):
        planner = Planner(kind, cores=2)
        planner.set_members([0])
        seen = {planner.spin(8)}
        while not planner.is_settled(8):
            seen.add(planner.spin(8))
            is_alone = (
                planner.assignments(8)[0].worker == SERVER and len(planner.assignments(8)) == 1
            )
            planner.observe(8, 0.9 if is_alone else 0.1 if planner.spin(8) == is_faster else 0.2)
        assert seen == {True, False}
        assert planner.spin(8) is is_faster


def test_plan_is_tried_anew_when_its_steps_have_become_slow() -> None:
    plan = Autotuner(ways([0, 1], 8))
    cost = {candidate: 0.01 * (1 + i) for i, candidate in enumerate(plan.candidates)}
    while not plan.is_settled:
        run_plan(plan, cost, 1)
    for i in range(FIRST_INTERVAL_STEPS // 2):  # Every second step: as often as not.
        plan.observe(0.01 if i % 2 else 1.0)
        assert plan.is_settled
    for _ in range(MOST_SLOW_STEPS):
        assert plan.is_settled
        plan.observe(0.0201)
    assert not plan.is_settled
