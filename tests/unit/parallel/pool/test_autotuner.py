from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.parallel.pool.autotuner import (
    BLOCKS_A_WORKER,
    FEWEST_TRIAL_STEPS,
    FIRST_INTERVAL_STEPS,
    LONGEST_INTERVAL_STEPS,
    MOST_SLOW_STEPS,
    MOST_TRIAL_STEPS,
    SERVER,
    TRIAL_STEPS,
    Assigner,
    Assignment,
    AssignmentKind,
    Autotuner,
    Candidate,
    assignments,
    process_sets,
    with_and_without_spinning,
)

WORKERS = st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True)


@given(num_blocks=st.integers(0, 300), workers=WORKERS)
def test_assignments_cover_every_block_once_in_order(num_blocks: int, workers: list[int]) -> None:
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
def test_process_sets_differ_and_give_each_process_a_block(
    members: list[int], num_blocks: int
) -> None:
    found = process_sets(members, num_blocks)
    assert found[0] == (SERVER,)
    assert len(set(found)) == len(found)
    for candidate in found:
        assert len(assignments(num_blocks, candidate)) == len(candidate)
        assert set(candidate) <= {SERVER, *members}


def test_process_sets_include_all_workers_where_there_are_blocks_for_them() -> None:
    assert process_sets([0, 1, 2], 8)[-2:] == [(SERVER, 0, 1), (0, 1, 2)]
    assert process_sets([0, 1, 2, 3, 4], 16)[-1] == (0, 1, 2, 3, 4)
    assert process_sets([0], 8) == [(SERVER,), (SERVER, 0)]
    assert process_sets([0, 1], 1) == [(SERVER,)]


def candidates_for(workers: list[int], num_blocks: int) -> list[Candidate]:
    return [Candidate(workers) for workers in process_sets(workers, num_blocks)]


def run_steps(tuner: Autotuner, cost: dict[Candidate, float], num_steps: int) -> None:
    for _ in range(num_steps):
        tuner.observe(cost[tuner.candidate])


@pytest.mark.parametrize("fastest", range(3))
def test_autotuner_finds_the_fastest_candidate_and_tries_again_later(fastest: int) -> None:
    candidates = candidates_for([0, 1], 8)
    tuner = Autotuner(candidates)
    num_trials = TRIAL_STEPS * len(candidates)
    cost = {candidate: 0.01 * (1 + abs(i - fastest)) for i, candidate in enumerate(candidates)}
    run_steps(tuner, cost, num_trials)
    assert tuner.candidate == candidates[fastest]
    run_steps(tuner, cost, FIRST_INTERVAL_STEPS - 1)
    assert tuner.candidate == candidates[fastest]
    run_steps(tuner, cost, 1)
    changed = {
        candidate: 0.01 * (1 + abs(i - (fastest + 1) % 3)) for i, candidate in enumerate(candidates)
    }
    run_steps(tuner, changed, num_trials)
    assert tuner.candidate == candidates[(fastest + 1) % 3]


def test_autotuner_ignores_first_steps_and_single_slow_ones() -> None:
    candidates = candidates_for([0, 1], 8)
    tuner = Autotuner(candidates)
    seconds = [
        [0.015] * TRIAL_STEPS,
        [1.0, 0.01, 0.01, 0.01, 0.03, 0.03],
        [0.014] * TRIAL_STEPS,
    ]
    for times in seconds:
        for time in times:
            tuner.observe(time)
    assert tuner.candidate == candidates[1]


def test_autotuner_tries_again_at_growing_intervals() -> None:
    tuner = Autotuner(candidates_for([0, 1], 8))
    cost = dict.fromkeys(tuner.candidates, 1.0)
    intervals: list[int] = []
    length = 0
    while len(intervals) < 9:
        was_trying = tuner._trying
        run_steps(tuner, cost, 1)
        length = 0 if was_trying else length + 1
        if length and tuner._trying:
            intervals.append(length)
    assert intervals[:3] == [
        FIRST_INTERVAL_STEPS,
        2 * FIRST_INTERVAL_STEPS,
        4 * FIRST_INTERVAL_STEPS,
    ]
    assert intervals[-1] == LONGEST_INTERVAL_STEPS


def assigned(assigner: Assigner, num_blocks: int, workers: tuple[int, ...]) -> list[Assignment]:
    return list(assignments(num_blocks, assigner.tuner(num_blocks, workers).candidate.workers))


@pytest.mark.parametrize("kind", ["all", "autotune"])
def test_without_workers_the_server_computes_and_no_blocks_are_assigned_to_none(
    kind: AssignmentKind,
) -> None:
    assigner = Assigner(kind, cores=1)
    assert assigned(assigner, 5, ()) == [Assignment(SERVER, 0, 5)]
    assigner.tuner(5, ()).observe(1.0)
    assert assigner.tuner(5, ()).is_settled
    assert assigned(assigner, 0, (0, 1)) == []
    assert assigner.unmeasured(100, ()) == Candidate((SERVER,))


def test_assignment_to_all_uses_every_worker_as_they_come_and_go() -> None:
    assigner = Assigner("all", cores=1)
    assert assigned(assigner, 4, (0, 2)) == [Assignment(0, 0, 2), Assignment(2, 2, 4)]
    assert assigned(assigner, 4, (2,)) == [Assignment(2, 0, 4)]
    assert assigned(assigner, 4, ()) == [Assignment(SERVER, 0, 4)]
    assert assigner.unmeasured(1, (0, 2)) == Candidate((0, 2))


def test_evaluation_by_the_fastest_goes_to_workers_where_each_has_enough_blocks() -> None:
    assigner = Assigner("autotune", cores=1)
    assert assigner.unmeasured(2 * BLOCKS_A_WORKER, (0, 1)) == Candidate((0, 1))
    assert assigner.unmeasured(2 * BLOCKS_A_WORKER - 1, (0, 1)) == Candidate((SERVER,))


def test_assigner_measures_each_number_of_blocks_and_set_of_workers_until_one_is_new() -> None:
    assigner, both = Assigner("autotune", cores=1), (0, 1)
    num_candidates = len(candidates_for([0, 1], 8))
    for i in range(num_candidates * TRIAL_STEPS):
        assigner.tuner(8, both).observe(0.01 * (num_candidates - i // TRIAL_STEPS))
    assert assigned(assigner, 8, both) == [Assignment(0, 0, 4), Assignment(1, 4, 8)]
    assert assigned(assigner, 4, both) == [Assignment(SERVER, 0, 4)]
    assert assigned(assigner, 8, (0,)) == [Assignment(SERVER, 0, 8)]
    assert assigned(assigner, 8, both) == [Assignment(0, 0, 4), Assignment(1, 4, 8)]
    assigner.forget()
    assert assigned(assigner, 8, both) == [Assignment(SERVER, 0, 8)]


def test_short_steps_are_tried_for_longer_and_long_ones_less_often() -> None:
    quick, slow = Autotuner(candidates_for([0], 8)), Autotuner(candidates_for([0], 8))
    cost = {candidate: 1e-4 * (1 + i) for i, candidate in enumerate(quick.candidates)}
    run_steps(quick, cost, 2 * TRIAL_STEPS)
    assert not quick.is_settled
    run_steps(quick, cost, 2 * MOST_TRIAL_STEPS)
    assert quick.is_settled
    assert quick.candidate == quick.candidates[0]
    run_steps(
        slow, {candidate: 10 * seconds for candidate, seconds in cost.items()}, 2 * TRIAL_STEPS
    )
    run_steps(slow, dict.fromkeys(slow.candidates, 1.0), 2 * FEWEST_TRIAL_STEPS)
    assert slow.is_settled


def test_processes_spin_only_where_each_has_a_core() -> None:
    assert with_and_without_spinning((SERVER,), 8) == [Candidate((SERVER,))]
    for workers, cores in (((SERVER, 0), 2), ((0,), 2), ((0, 1), 3)):
        assert with_and_without_spinning(workers, cores)[-1].spin
        assert len(with_and_without_spinning(workers, cores - 1)) == 1


@pytest.mark.parametrize("kind", ["all", "autotune"])
def test_spinning_is_tried_and_kept_where_it_is_faster(kind: AssignmentKind) -> None:
    for is_faster in (True, False):
        tuner = Assigner(kind, cores=2).tuner(8, (0,))
        seen = {tuner.candidate.spin}
        while not tuner.is_settled:
            workers, spin = tuner.candidate
            seen.add(spin)
            tuner.observe(0.9 if workers == (SERVER,) else 0.1 if spin == is_faster else 0.2)
        assert seen == {True, False}
        assert tuner.candidate.spin is is_faster


def test_autotuner_tries_again_when_steps_have_become_slow() -> None:
    tuner = Autotuner(candidates_for([0, 1], 8))
    cost = {candidate: 0.01 * (1 + i) for i, candidate in enumerate(tuner.candidates)}
    while not tuner.is_settled:
        run_steps(tuner, cost, 1)
    for i in range(FIRST_INTERVAL_STEPS // 2):  # Every second step: as often as not.
        tuner.observe(0.01 if i % 2 else 1.0)
        assert tuner.is_settled
    for _ in range(MOST_SLOW_STEPS):
        assert tuner.is_settled
        tuner.observe(0.0201)
    assert not tuner.is_settled
