from __future__ import annotations

from distsgd.parallel.pool.stragglers import (
    END_AFTER_S,
    FIRST_BACKOFF_STEPS,
    FORGIVEN_AFTER,
    LATE_FACTOR,
    LATE_FLOOR_S,
    SLOW_FLOOR_S,
    SLOW_STEPS,
    Stragglers,
)


def test_nobody_is_late_while_nothing_is_known() -> None:
    assert Stragglers().allowed_s(1, 4) is None


def test_allowed_time_follows_the_rows_of_each_kind_and_has_a_floor() -> None:
    stragglers = Stragglers()
    stragglers.took(1, 2, 2.0)
    assert stragglers.allowed_s(1, 3) == LATE_FACTOR * 3.0
    assert stragglers.allowed_s(2, 3) is None
    quick = Stragglers()
    quick.took(1, 1, 1e-6)
    assert quick.allowed_s(1, 1) == LATE_FLOOR_S


def test_a_late_worker_gets_no_work_until_it_has_answered_and_rested() -> None:
    stragglers = Stragglers()
    stragglers.pending_reply(1, since_s=0.0)
    stragglers.rest(1, step=10)
    assert stragglers.fit((0, 1), 10**9) == (0,)
    assert stragglers.answered(1)
    assert not stragglers.answered(1)
    assert stragglers.fit((0, 1), 11) == (0,)
    assert stragglers.fit((0, 1), 10 + FIRST_BACKOFF_STEPS) == (0, 1)


def test_each_time_a_worker_is_late_it_rests_twice_as_long() -> None:
    stragglers = Stragglers()
    for _ in range(3):
        stragglers.rest(0, step=0)
    assert stragglers.fit((0,), 4 * FIRST_BACKOFF_STEPS - 1) == ()
    assert stragglers.fit((0,), 4 * FIRST_BACKOFF_STEPS) == (0,)


def test_what_was_long_ago_is_forgiven() -> None:
    stragglers = Stragglers()
    for _ in range(3):
        stragglers.rest(0, step=0)
    long_after = 4 * FIRST_BACKOFF_STEPS + FORGIVEN_AFTER * 8 * FIRST_BACKOFF_STEPS + 1
    stragglers.rest(0, step=long_after)
    assert stragglers.fit((0,), long_after + FIRST_BACKOFF_STEPS - 1) == ()
    assert stragglers.fit((0,), long_after + FIRST_BACKOFF_STEPS) == (0,)


def test_one_that_owes_for_long_is_overdue_and_a_new_process_owes_nothing() -> None:
    stragglers = Stragglers()
    stragglers.pending_reply(0, since_s=1.0)
    assert stragglers.overdue(1.0 + END_AFTER_S) == []
    assert stragglers.overdue(1.1 + END_AFTER_S) == [0]
    stragglers.forget(0)
    assert stragglers.overdue(100.0) == []
    assert stragglers.fit((0,), 0) == (0,)


def test_one_that_step_after_step_waits_for_is_slow_and_a_single_delay_is_chance() -> None:
    stragglers = Stragglers()
    late, usual = {-1: 0.002, 0: 0.025, 1: 0.003}, {-1: 0.002, 0: 0.003, 1: 0.003}
    assert [stragglers.slow_one(late) for _ in range(SLOW_STEPS - 1)] == [None] * (SLOW_STEPS - 1)
    assert stragglers.slow_one(usual) is None
    assert [stragglers.slow_one(late) for _ in range(SLOW_STEPS)][-1] == 0
    stragglers.rest(0, step=5)
    assert stragglers.fit((0, 1), 6) == (1,)
    assert stragglers.fit((0, 1), 5 + FIRST_BACKOFF_STEPS) == (0, 1)
    assert stragglers.overdue(1e9) == []


def test_nobody_is_slow_alone_or_by_less_than_a_system_delays_a_step_or_where_all_are() -> None:
    stragglers = Stragglers()
    for seconds in ({0: 9.0}, {0: SLOW_FLOOR_S, 1: 1e-6}, {0: 9.0, 1: 9.0}, {0: 9.0, 1: 3.0}):
        assert {stragglers.slow_one(seconds) for _ in range(3 * SLOW_STEPS)} == {None}
