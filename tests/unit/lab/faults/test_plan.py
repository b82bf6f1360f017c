"""Plans of faults: read, refused, due. Nobody is hurt here."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.errors import ConfigError
from distsgd.lab.faults.plan import (
    SERVER_PHASES,
    WORKER_PHASES,
    Fault,
    FaultPlan,
    Phase,
    RandomFaults,
    Target,
)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "kill worker every 50 steps",
            Fault(action="kill", target="worker", every=50, phase="before_read"),
        ),
        (
            "stop worker 1 at step 30",
            Fault(action="stop", target="worker", worker=1, step=30, phase="before_read"),
        ),
        (
            "  slow worker 0 at   step 10 by 2.5 for 200 steps ",
            Fault(
                action="slow",
                target="worker",
                worker=0,
                step=10,
                phase="before_read",
                factor=2.5,
                steps=200,
            ),
        ),
        (
            "kill server at step 100 during_checkpoint",
            Fault(action="kill", target="server", step=100, phase="during_checkpoint"),
        ),
        (
            "kill worker 2 at step 0 after_update",
            Fault(action="kill", target="worker", worker=2, step=0, phase="after_update"),
        ),
        (
            "drop worker at step 7",
            Fault(action="drop", target="worker", step=7, phase="before_read"),
        ),
        ("kill driver at step 40", Fault(action="kill", target="driver", step=40)),
    ],
)
def test_line_is_the_fault_it_says_and_reads_back_as_itself(line: str, fault: Fault) -> None:
    (found,) = FaultPlan.parse([line]).faults
    assert found == fault
    assert FaultPlan.parse([str(found)]).faults == (fault,)


def test_builder_gives_what_the_lines_give() -> None:
    lines = [
        "kill worker 1 at step 3 after_compute",
        "stop worker 0 at step 4",
        "slow worker at step 5 by 10",
        "drop worker at step 6",
        "kill server at step 7 before_update",
    ]
    plan = (
        FaultPlan()
        .kill(worker=1, step=3, phase="after_compute")
        .stop(worker=0, step=4)
        .slow(step=5, factor=10)
        .drop(step=6)
        .kill(server=True, step=7, phase="before_update")
    )
    assert plan == FaultPlan.parse(lines)
    assert plan.needs_workers
    assert not FaultPlan.parse(["kill server at step 1", "kill driver at step 2"]).needs_workers
    assert FaultPlan.parse(["random 1 in 9 steps"]).needs_workers


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "cannot be read"),
        ("kill everybody", "cannot be read"),
        ("kill worker", "cannot be read"),
        ("kill worker at step -1", "cannot be read"),
        ("kill worker every 0 steps", "N 1 or more"),
        ("random 1 in 0 steps", "cannot be read"),
        ("kill worker at step 9999999999999999999999", "cannot be read"),
        ("stop server at step 1", "can only be killed"),
        ("kill driver 3 at step 1", "can only be killed"),
        ("kill driver at step 1 before_update", "does not see steps"),
        ("kill server at step 1 before_read", "phase of workers"),
        ("slow worker at step 1 by 1", "must be above 1"),
        ("slow worker at step 1 after_update by 3", "cannot be done then"),
        ("drop worker at step 1 during_checkpoint", "cannot be done then"),
        ("kill worker at step 1 by 3", 'only "slow" knows'),
        ("kill worker at step 1 for 3 steps", 'only "slow" knows'),
        ("kill worker at step 1 at_lunch", "cannot be read"),
    ],
)
def test_line_that_is_no_fault_is_refused_with_the_grammar(line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FaultPlan.parse(["kill worker at step 1", line])
    (text,) = caught.value.problems
    assert problem in text
    assert "kill worker every 50 steps" in text


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(line: str) -> None:
    try:
        plan = FaultPlan.parse([line])
    except ConfigError:
        return
    assert plan.faults or plan.random


def keys(plan: FaultPlan, target: Target, phase: Phase, *, step: int, since: int = -1) -> list[str]:
    return [due.key for due in plan.due(target, phase, since=since, step=step)]


def test_old_name_of_a_phase_is_read_as_the_new_one() -> None:
    lines = ["kill worker at step 4 before_apply", "kill server at step 3 after_apply"]
    assert [fault.phase for fault in FaultPlan.parse(lines).faults] == [
        "before_update",
        "after_update",
    ]


def test_fault_is_due_from_its_step_on_in_its_phase_only() -> None:
    plan = FaultPlan().kill(worker=1, step=3, phase="after_compute")
    assert keys(plan, "worker", "after_compute", step=2) == []
    assert keys(plan, "worker", "after_compute", step=3) == [str(plan.faults[0])]
    assert keys(plan, "worker", "after_compute", step=9) == [str(plan.faults[0])]
    assert keys(plan, "worker", "before_read", step=3) == []
    assert keys(plan, "server", "after_update", step=3) == []


def test_repeated_fault_has_a_key_for_each_time() -> None:
    plan = FaultPlan.parse(["kill worker every 50 steps"])
    found = [keys(plan, "worker", "before_read", step=step) for step in (49, 50, 99, 100)]
    assert found[0] == []
    assert found[1] == found[2] != found[3]
    twice = FaultPlan().kill(worker=0, step=1).kill(worker=0, step=1)
    assert len(set(keys(twice, "worker", "before_read", step=1))) == 2


def test_random_faults_are_a_pure_function_of_seed_and_step_and_of_every_kind() -> None:
    source = RandomFaults(20, 5)
    drawn = [source.at(step) for step in range(20_000)]
    assert drawn == [RandomFaults(20, 5).at(step) for step in range(20_000)]
    assert drawn != [RandomFaults(20, 6).at(step) for step in range(20_000)]
    found = [fault for fault in drawn if fault is not None]
    assert 900 < len(found) < 1100
    assert set(Counter((fault.action, fault.target) for fault in found)) == {
        ("kill", "worker"),
        ("stop", "worker"),
        ("slow", "worker"),
        ("drop", "worker"),
        ("kill", "server"),
    }
    for fault in found:
        phases = WORKER_PHASES if fault.target == "worker" else SERVER_PHASES
        assert fault.phase in phases
        assert FaultPlan().with_fault(fault).faults == (fault,)


def test_random_faults_of_missed_steps_are_due_too() -> None:
    plan = FaultPlan.parse(["random 1 in 20 steps seed 5"])
    one_by_one = [
        key
        for step in range(500)
        for key in keys(plan, "worker", "before_read", step=step, since=step - 1)
    ]
    assert one_by_one
    assert keys(plan, "worker", "before_read", step=499) == one_by_one
