"""Workers that are late or slow: how long they get no work."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distsgd.parallel.messages import (
    RequestKind,
)
from distsgd.parallel.pool.autotuner import SERVER
from distsgd.parallel.pool.members import (
    FIRST_BACKOFF_STEPS,
    FORGIVEN_AFTER,
    LONGEST_BACKOFF_STEPS,
    SLOW_FLOOR_S,
    SLOW_STEPS,
    Decision,
    Members,
    Say,
)
from distsgd.parallel.transport.interface import Lost, Replied
from tests.unit.parallel.pool.member_events import (
    TIMEOUT_S,
    joined,
    late,
    members_of,
    reply,
    request,
)


def be_late(members: Members, worker: int, step: int, *, answers: bool = True) -> None:
    to = request(step=step)
    members.ask(worker, to, num_rows=10, now_s=0.0)
    assert list(members.tick(TIMEOUT_S)) == late(worker, to)
    if answers:
        members.handle(Replied(worker, reply(to)), TIMEOUT_S)


def test_late_worker_gets_no_work_until_it_has_answered_and_backed_off() -> None:
    members = members_of(2)
    be_late(members, 1, 10, answers=False)
    assert members.fit(10**9) == (0,)
    members.handle(Replied(1, reply(request(step=10))), TIMEOUT_S)
    assert members.fit(10 + FIRST_BACKOFF_STEPS - 1) == (0,)
    assert members.fit(10 + FIRST_BACKOFF_STEPS) == (0, 1)


def test_each_time_a_worker_is_late_it_backs_off_twice_as_long_up_to_a_limit() -> None:
    members, step = members_of(1), 0
    for power in range(30):
        be_late(members, 0, step)
        backoff = min(FIRST_BACKOFF_STEPS << power, LONGEST_BACKOFF_STEPS)
        assert members.fit(step + backoff - 1) == ()
        assert members.fit(step + backoff) == (0,)
        step += backoff


def test_what_was_long_ago_and_what_another_process_did_is_forgiven() -> None:
    members = members_of(1)
    for _ in range(3):
        be_late(members, 0, 0)
    long_after = 4 * FIRST_BACKOFF_STEPS + FORGIVEN_AFTER * 8 * FIRST_BACKOFF_STEPS + 1
    be_late(members, 0, long_after)
    assert members.fit(long_after + FIRST_BACKOFF_STEPS - 1) == ()
    assert members.fit(long_after + FIRST_BACKOFF_STEPS) == (0,)
    members.handle(joined(0), 0.0)
    assert members.fit(long_after) == (0,)


def took(members: Members, seconds: dict[int, float], step: int) -> Sequence[Decision]:
    """Each process computes as many rows in its own time."""
    for worker, its_s in seconds.items():
        if worker == SERVER:
            members.computed_here(reply(request(step=step))._replace(compute_us=1e6 * its_s))
        else:
            to = request(step=step)
            members.ask(worker, to, num_rows=10, now_s=0.0)
            members.handle(Replied(worker, reply(to)), its_s)
    return members.step_done(step)


def test_worker_for_which_step_after_step_waits_backs_off_and_a_single_delay_is_chance() -> None:
    members = members_of(2)
    slow, usual = {SERVER: 0.002, 0: 0.025, 1: 0.003}, {SERVER: 0.002, 0: 0.003, 1: 0.003}
    for step in range(SLOW_STEPS - 1):
        assert took(members, slow, step) == ()
    assert took(members, usual, 7) == ()
    for step in range(SLOW_STEPS - 1):
        assert took(members, slow, step) == ()
    assert took(members, slow, 20) == (
        Say("worker 0 is slow, seen at step 20; others compute its blocks"),
    )
    assert members.fit(20 + FIRST_BACKOFF_STEPS - 1) == (1,)
    assert members.fit(20 + FIRST_BACKOFF_STEPS) == (0, 1)
    assert members.tick(1e9) == []
    members.handle(Lost(1, "killed"), 0.0)
    for step in range(SLOW_STEPS - 1):
        took(members, {SERVER: 0.002, 0: 0.025}, step)
    assert took(members, {SERVER: 0.002, 0: 0.025}, 30) == (
        Say("worker 0 is slow, seen at step 30; the server computes its blocks"),
    )


@pytest.mark.parametrize(
    "seconds",
    [
        {},
        {0: 9.0},
        {0: SLOW_FLOOR_S, 1: 1e-6},
        {0: 9.0, 1: 9.0},
        {0: 9.0, 1: 3.0},
        {SERVER: 9.0, 0: 0.1},
    ],
)
def test_none_is_slow_alone_or_by_less_than_a_system_delays_a_step_or_where_all_are(
    seconds: dict[int, float],
) -> None:
    members = members_of(2)
    for step in range(3 * SLOW_STEPS):
        assert took(members, seconds, step) == ()


def test_times_of_one_step_are_not_held_against_those_of_the_next() -> None:
    members = members_of(2)
    for step in range(3 * SLOW_STEPS):
        assert took(members, {step % 2: 9.0 if step % 2 else 0.1}, step) == ()


def test_evaluations_are_not_looked_at_for_slow_workers() -> None:
    members = members_of(2)
    for step in range(SLOW_STEPS):
        for worker, seconds in ((0, 9.0), (1, 0.1)):
            to = request(step=step, kind=RequestKind.EVALUATE)
            members.ask(worker, to, num_rows=10, now_s=0.0)
            members.handle(Replied(worker, reply(to)), seconds)
        assert members.step_done(step) == ()
