from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.parallel.crew.plan import (
    FEWEST_TRIAL_STEPS,
    FIRST_TERM_STEPS,
    LONGEST_TERM_STEPS,
    MOST_SLOW_STEPS,
    MOST_TRIAL_STEPS,
    SERVER,
    TRIAL_STEPS,
    MeasuredPlan,
    PlanKind,
    Planner,
    Share,
    Way,
    crews,
    shares,
    sleeping_or_not,
)

WORKERS = st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True)


@given(num_blocks=st.integers(0, 300), workers=WORKERS)
def test_shares_cover_every_block_once_in_order(num_blocks: int, workers: list[int]) -> None:
    found = list(shares(num_blocks, tuple(workers)))
    assert [i for share in found for i in range(share.first, share.last)] == list(range(num_blocks))
    assert [share.worker for share in found] == [
        w for w in workers if w in {s.worker for s in found}
    ]
    sizes = [share.last - share.first for share in found]
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)


@given(members=WORKERS, num_blocks=st.integers(1, 64))
def test_ways_differ_and_give_everybody_a_block(members: list[int], num_blocks: int) -> None:
    found = crews(members, num_blocks)
    assert found[0] == (SERVER,)
    assert len(set(found)) == len(found)
    for way in found:
        assert len(shares(num_blocks, way)) == len(way)
        assert set(way) <= {SERVER, *members}


def test_ways_include_all_workers_where_there_are_blocks_for_them() -> None:
    assert crews([0, 1, 2], 8)[-2:] == [(SERVER, 0, 1), (0, 1, 2)]
    assert crews([0, 1, 2, 3, 4], 16)[-1] == (0, 1, 2, 3, 4)
    assert crews([0], 8) == [(SERVER,), (SERVER, 0)]
    assert crews([0, 1], 1) == [(SERVER,)]


def ways(members: list[int], num_blocks: int) -> list[Way]:
    return [Way(workers) for workers in crews(members, num_blocks)]


def run_plan(plan: MeasuredPlan, cost: dict[Way, float], num_steps: int) -> None:
    for _ in range(num_steps):
        plan.observe(cost[plan.way])


@pytest.mark.parametrize("fastest", range(3))
def test_measured_plan_finds_the_fastest_way_and_looks_again_later(fastest: int) -> None:
    candidates = ways([0, 1], 8)
    plan = MeasuredPlan(candidates)
    num_trials = TRIAL_STEPS * len(candidates)
    cost = {way: 0.01 * (1 + abs(i - fastest)) for i, way in enumerate(candidates)}
    run_plan(plan, cost, num_trials)
    assert plan.way == candidates[fastest]
    run_plan(plan, cost, FIRST_TERM_STEPS - 1)
    assert plan.way == candidates[fastest]
    run_plan(plan, cost, 1)
    changed = {way: 0.01 * (1 + abs(i - (fastest + 1) % 3)) for i, way in enumerate(candidates)}
    run_plan(plan, changed, num_trials)
    assert plan.way == candidates[(fastest + 1) % 3]


def test_measured_plan_passes_over_first_steps_and_single_slow_ones() -> None:
    candidates = ways([0, 1], 8)
    plan = MeasuredPlan(candidates)
    seconds = [
        [0.015] * TRIAL_STEPS,
        [1.0, 0.01, 0.01, 0.01, 0.03, 0.03],
        [0.014] * TRIAL_STEPS,
    ]
    for times in seconds:
        for time in times:
            plan.observe(time)
    assert plan.way == candidates[1]


def test_measured_plan_looks_again_ever_more_rarely() -> None:
    plan = MeasuredPlan(ways([0, 1], 8))
    cost = dict.fromkeys(plan.candidates, 1.0)
    terms: list[int] = []
    length = 0
    while len(terms) < 9:
        was_trying = plan._trying
        run_plan(plan, cost, 1)
        length = 0 if was_trying else length + 1
        if length and plan._trying:
            terms.append(length)
    assert terms[:3] == [FIRST_TERM_STEPS, 2 * FIRST_TERM_STEPS, 4 * FIRST_TERM_STEPS]
    assert terms[-1] == LONGEST_TERM_STEPS


def test_planner_without_members_or_blocks_leaves_all_to_the_server() -> None:
    for kind in ("measured", "all"):
        planner = Planner("all" if kind == "all" else "measured", cores=1)
        assert list(planner.shares(5)) == [Share(SERVER, 0, 5)]
        planner.observe(5, 1.0)
        planner.set_members([0, 1])
        assert list(planner.shares(0)) == []


def test_plan_all_uses_every_member_as_they_come_and_go() -> None:
    planner = Planner("all", cores=1)
    planner.set_members([2, 0])
    assert planner.members == (0, 2)
    assert list(planner.shares(4)) == [Share(0, 0, 2), Share(2, 2, 4)]
    planner.set_members([2])
    assert list(planner.shares(4)) == [Share(2, 0, 4)]
    planner.set_members([])
    assert list(planner.shares(4)) == [Share(SERVER, 0, 4)]


def test_planner_measures_each_number_of_blocks_and_set_of_members_until_one_is_new() -> None:
    planner = Planner("measured", cores=1)
    planner.set_members([0, 1])
    num_ways = len(ways([0, 1], 8))
    for i in range(num_ways * TRIAL_STEPS):
        planner.observe(8, 0.01 * (num_ways - i // TRIAL_STEPS))
    assert list(planner.shares(8)) == [Share(0, 0, 4), Share(1, 4, 8)]
    assert list(planner.shares(4)) == [Share(SERVER, 0, 4)]
    planner.set_members([0])
    assert list(planner.shares(8)) == [Share(SERVER, 0, 8)]
    planner.set_members([0, 1])
    assert list(planner.shares(8)) == [Share(0, 0, 4), Share(1, 4, 8)]
    planner.forget()
    assert list(planner.shares(8)) == [Share(SERVER, 0, 8)]


def test_short_steps_are_tried_for_longer_and_long_ones_less_often() -> None:
    quick, slow = MeasuredPlan(ways([0], 8)), MeasuredPlan(ways([0], 8))
    cost = {way: 1e-4 * (1 + i) for i, way in enumerate(quick.candidates)}
    run_plan(quick, cost, 2 * TRIAL_STEPS)
    assert not quick.is_settled
    run_plan(quick, cost, 2 * MOST_TRIAL_STEPS)
    assert quick.is_settled
    assert quick.way == quick.candidates[0]
    run_plan(slow, {way: 10 * seconds for way, seconds in cost.items()}, 2 * TRIAL_STEPS)
    run_plan(slow, dict.fromkeys(slow.candidates, 1.0), 2 * FEWEST_TRIAL_STEPS)
    assert slow.is_settled


def test_processes_stay_awake_only_where_each_has_a_core() -> None:
    assert sleeping_or_not((SERVER,), 8) == [Way((SERVER,))]
    for workers, cores in (((SERVER, 0), 2), ((0,), 2), ((0, 1), 3)):
        assert sleeping_or_not(workers, cores)[-1].is_awake
        assert len(sleeping_or_not(workers, cores - 1)) == 1


@pytest.mark.parametrize("kind", ["all", "measured"])
def test_staying_awake_is_tried_and_kept_where_it_is_faster(kind: PlanKind) -> None:
    for is_faster in (True, False):
        planner = Planner(kind, cores=2)
        planner.set_members([0])
        seen = {planner.stay_awake(8)}
        while not planner.is_settled(8):
            seen.add(planner.stay_awake(8))
            is_alone = planner.shares(8)[0].worker == SERVER and len(planner.shares(8)) == 1
            planner.observe(
                8, 0.9 if is_alone else 0.1 if planner.stay_awake(8) == is_faster else 0.2
            )
        assert seen == {True, False}
        assert planner.stay_awake(8) is is_faster


def test_plan_is_tried_anew_when_its_steps_have_become_slow() -> None:
    plan = MeasuredPlan(ways([0, 1], 8))
    cost = {way: 0.01 * (1 + i) for i, way in enumerate(plan.candidates)}
    while not plan.is_settled:
        run_plan(plan, cost, 1)
    for i in range(FIRST_TERM_STEPS // 2):  # Every second step: as often as not.
        plan.observe(0.01 if i % 2 else 1.0)
        assert plan.is_settled
    for _ in range(MOST_SLOW_STEPS):
        assert plan.is_settled
        plan.observe(0.0201)
    assert not plan.is_settled
