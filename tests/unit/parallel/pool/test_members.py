"""Tables of events: what is decided about workers that join, answer, are late, slow or lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.errors import ClusterError, NumericsError
from distsgd.parallel.messages import (
    ComputeReply,
    ComputeRequest,
    PartialRef,
    ReduceReply,
    ReduceRequest,
    RequestKind,
    WorkerInfo,
)
from distsgd.parallel.pool.autotuner import SERVER
from distsgd.parallel.pool.members import (
    FIRST_BACKOFF_STEPS,
    FORGIVEN_AFTER,
    KILL_AFTER_S,
    LONGEST_BACKOFF_STEPS,
    PATIENCE_FACTOR,
    PATIENCE_FLOOR_S,
    SLOW_FLOOR_S,
    SLOW_STEPS,
    Accept,
    Decision,
    Kill,
    Members,
    Recompute,
    Request,
    Say,
    Welcome,
)
from distsgd.parallel.transport.interface import Event, Joined, Lost, Reduced, Replied

OWN = WorkerInfo(SERVER, "1", 1, "p", "d")
TIMEOUT_S = 10.0


def joined(worker: int) -> Joined:
    return Joined(worker, WorkerInfo(worker, "1", 100 + worker, "p", "d"))


def members_of(count: int) -> Members:
    members = Members(OWN, step_timeout_s=TIMEOUT_S)
    for worker in range(count):
        members.handle(joined(worker), 0.0)
    return members


def request(
    first: int = 0, last: int = 2, step: int = 7, kind: RequestKind = RequestKind.GRADIENT
) -> ComputeRequest:
    return ComputeRequest(1, kind, step, first, last, 0, 0)


def reply(to: ComputeRequest) -> ComputeReply:
    return ComputeReply(*to[:5], 0.0, 0.0, ())


def sums(step: int = 7) -> ReduceRequest:
    return ReduceRequest(1, step, 0, 2, (PartialRef(0, 0, 0), PartialRef(1, 0, 1)))


def summed(to: ReduceRequest) -> ReduceReply:
    return ReduceReply(*to[:4], (1.0, 2.0))


@dataclass(frozen=True)
class Ask:
    worker: int
    request: Request
    num_rows: int = 10
    expected_s: float = 0.0  # Of a reduce request.


TICK = "tick"
Row = tuple[float, Event | Ask | str, Sequence[Decision]]


def decided(members: Members, stimulus: Event | Ask | str, now_s: float) -> Sequence[Decision]:
    if isinstance(stimulus, str):
        return members.tick(now_s)
    if not isinstance(stimulus, Ask):
        return members.handle(stimulus, now_s)
    worker, asked = stimulus.worker, stimulus.request
    if isinstance(asked, ComputeRequest):
        members.ask(worker, asked, num_rows=stimulus.num_rows, now_s=now_s)
    else:
        members.ask_to_reduce(worker, asked, expected_s=stimulus.expected_s, now_s=now_s)
    return ()


def late(worker: int, to: ComputeRequest) -> list[Decision]:
    text = f"worker {worker} is late at step {to.step}; the server computes its blocks"
    return [Say(text), Recompute(worker, to, "late")]


A, B = request(0, 2), request(2, 4)
LATER = request(0, 2, step=8)
TABLES: dict[str, list[Row]] = {
    "a reply to what was asked is accepted, and only once": [
        (0.0, Ask(0, A), []),
        (0.1, Replied(0, reply(A)), [Accept(0, reply(A))]),
        (0.2, Replied(0, reply(A)), []),
    ],
    "replies to another step, incarnation, kind or range are ignored": [
        (0.0, Ask(0, A), []),
        (0.1, Replied(0, reply(A._replace(step=6))), []),
        (0.1, Replied(0, reply(A._replace(incarnation=0))), []),
        (0.1, Replied(0, reply(A._replace(kind=RequestKind.LOSS))), []),
        (0.1, Replied(0, reply(A._replace(last=3))), []),
        (0.1, Reduced(0, ReduceReply(1, int(A.kind), A.step, A.first, ())), []),
        (0.2, Replied(0, reply(A)), [Accept(0, reply(A))]),
    ],
    "replies of workers that were not asked are ignored": [
        (0.0, Ask(0, A), []),
        (0.1, Replied(1, reply(A)), []),
        (0.1, Replied(99, reply(A)), []),
    ],
    "blocks of a lost worker are computed again, its last words are ignored": [
        (0.0, Ask(0, A), []),
        (0.0, Ask(1, B), []),
        (
            0.1,
            Lost(0, "killed"),
            [
                Say("worker 0 is lost (killed); others compute its blocks"),
                Recompute(0, A, "lost"),
            ],
        ),
        (0.2, Replied(0, reply(A)), []),
        (0.2, joined(0), [Welcome(0), Say("worker 0 has joined (process 100)")]),
        (0.3, Replied(0, reply(A)), []),
        (0.4, Replied(1, reply(B)), [Accept(1, reply(B))]),
        (
            0.5,
            Lost(1, "killed"),
            [Say("worker 1 is lost (killed); others compute its blocks")],
        ),
        (
            0.6,
            Lost(0, "killed"),
            [Say("worker 0 is lost (killed); the server computes its blocks")],
        ),
    ],
    "while no time is known a request is late after the step timeout": [
        (0.0, Ask(0, A), []),
        (TIMEOUT_S - 0.001, TICK, []),
        (TIMEOUT_S, TICK, late(0, A)),
        (TIMEOUT_S, TICK, []),
        (TIMEOUT_S + 0.1, Replied(0, reply(A)), []),
    ],
    "a request is late that takes a stated factor longer than its rows have been taking": [
        (0.0, Ask(0, A, num_rows=10), []),
        (1.0, Replied(0, reply(A)), [Accept(0, reply(A))]),
        (2.0, Ask(0, LATER, num_rows=5), []),
        (2.0 + PATIENCE_FACTOR * 0.5 - 0.001, TICK, []),
        (2.0 + PATIENCE_FACTOR * 0.5, TICK, late(0, LATER)),
    ],
    "patience has a floor, and every kind of request its own time": [
        (0.0, Ask(0, A), []),
        (1e-6, Replied(0, reply(A)), [Accept(0, reply(A))]),
        (1.0, Ask(0, LATER), []),
        (1.0, Ask(1, request(kind=RequestKind.EVALUATE)), []),
        (1.0 + PATIENCE_FLOOR_S - 0.001, TICK, []),
        (1.0 + PATIENCE_FLOOR_S, TICK, late(0, LATER)),
    ],
    "an answer that has come counts, however late it is": [
        (0.0, Ask(0, A), []),
        (5 * TIMEOUT_S, Replied(0, reply(A)), [Accept(0, reply(A))]),
        (5 * TIMEOUT_S, TICK, []),
    ],
    "one whose reply stays pending is killed, once": [
        (0.0, Ask(0, A), []),
        (TIMEOUT_S, TICK, late(0, A)),
        (TIMEOUT_S + KILL_AFTER_S, TICK, []),
        (TIMEOUT_S + KILL_AFTER_S + 0.1, TICK, [Kill(0)]),
        (TIMEOUT_S + KILL_AFTER_S + 9.0, TICK, []),
        (
            TIMEOUT_S + KILL_AFTER_S + 9.1,
            Lost(0, "ended"),
            [Say("worker 0 is lost (ended); others compute its blocks")],
        ),
        (TIMEOUT_S + 99.0, TICK, []),
    ],
    "a worker that answered late, or came anew, is not killed": [
        (0.0, Ask(0, A), []),
        (0.0, Ask(1, B), []),
        (TIMEOUT_S, TICK, [*late(0, A), *late(1, B)]),
        (TIMEOUT_S + 1.0, Replied(0, reply(A)), []),
        (TIMEOUT_S + 1.0, joined(1), [Welcome(1), Say("worker 1 has joined (process 101)")]),
        (TIMEOUT_S + 99.0, TICK, []),
    ],
    "ranges to be summed are waited for in the same way": [
        (0.0, Ask(0, sums(), expected_s=0.1), []),
        (0.0, Ask(1, sums(), expected_s=0.1), []),
        (0.1, Replied(0, ComputeReply(1, RequestKind(1), 7, 0, 2, 0.0, 0.0, ())), []),
        (0.1, Reduced(0, summed(sums(step=6))), []),
        (0.2, Reduced(0, summed(sums())), [Accept(0, summed(sums()))]),
        (
            PATIENCE_FACTOR * 0.1,
            TICK,
            [
                Say("worker 1 is late in summing at step 7; the server does it"),
                Recompute(1, sums(), "late"),
            ],
        ),
        (PATIENCE_FACTOR * 0.1 + KILL_AFTER_S + 0.1, TICK, [Kill(1)]),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_decisions_are_those_of_the_table(name: str) -> None:
    members = members_of(2)
    for now_s, stimulus, expected in TABLES[name]:
        assert list(decided(members, stimulus, now_s)) == list(expected), (now_s, stimulus)


def test_members_are_those_that_joined_and_were_not_lost() -> None:
    members = members_of(0)
    for worker in (2, 0, 1):
        members.handle(joined(worker), 0.0)
    assert members.connected == members.fit(0) == (0, 1, 2)
    members.handle(Lost(1, "killed"), 0.0)
    members.handle(Lost(7, "it is not connected"), 0.0)
    members.handle(joined(2), 0.0)
    assert members.connected == members.fit(0) == (0, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": "other"}, ClusterError, "worker 1 runs distsgd other, the server 1"),
        ({"data_digest": "other"}, ClusterError, "worker 1 sees other data than the server"),
        (
            {"probe": "other"},
            NumericsError,
            r"worker 1 computes other bits than the server \(probe other",
        ),
    ],
)
def test_worker_that_would_compute_something_else_is_refused(
    change: Any, error: type[ClusterError], message: str
) -> None:
    members = members_of(1)
    with pytest.raises(error, match=message):
        members.handle(Joined(1, replace(joined(1).description, **change)), 0.0)
    assert members.connected == (0,)


def test_worker_that_is_not_expected_any_more_has_left_and_is_not_lost() -> None:
    members = members_of(3)
    members.expect(2)
    assert members.handle(Lost(2, "eof"), 0.0) == (Say("worker 2 has left, as was asked"),)
    assert members.handle(Lost(0, "eof"), 0.0) == (
        Say("worker 0 is lost (eof); others compute its blocks"),
    )


def test_worker_that_is_refuted_is_named_and_killed() -> None:
    said, killed = members_of(2).refute(1, 7, "an invalid partial for blocks 0 to 1")
    assert isinstance(said, Say)
    assert said.text.startswith("worker 1, step 7: sent an invalid partial for blocks 0 to 1; ")
    assert killed == Kill(1)


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


def test_worker_late_in_summing_gets_no_work_until_it_has_answered_and_does_not_back_off() -> None:
    members = members_of(2)
    members.ask_to_reduce(1, sums(), expected_s=0.0, now_s=0.0)
    members.tick(1.0)
    assert members.fit(7) == (0,)
    members.handle(Reduced(1, summed(sums())), 1.0)
    assert members.fit(7) == (0, 1)


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


@dataclass
class Workers:
    """What workers owe a server: a model of all that can come in, in any order."""

    members: Members = field(default_factory=lambda: members_of(3))
    now_s: float = 0.0
    step: int = 0
    asked: dict[int, Request] = field(default_factory=dict)  # What must be decided, once each.
    sent: dict[int, list[Event]] = field(default_factory=dict)  # Replies that may still come.
    late_since_s: dict[int, float] = field(default_factory=dict)

    def ask(self, kind: int) -> None:
        """Each fit worker, for blocks or for a range to be summed."""
        if self.members.is_waiting:
            return
        self.step += 1
        fit = self.members.fit(self.step)
        assert set(fit) <= set(self.members.connected)
        assert not set(fit) & set(self.late_since_s)
        for worker in fit:
            to: Request
            if kind < 3:
                to = request(worker, worker + 1, self.step, RequestKind(kind + 1))
                event: Event = Replied(worker, reply(to))
                self.members.ask(worker, to, num_rows=3, now_s=self.now_s)
            else:
                to = sums(self.step)
                event = Reduced(worker, summed(to))
                self.members.ask_to_reduce(worker, to, expected_s=0.1, now_s=self.now_s)
            self.asked[worker] = to
            self.sent.setdefault(worker, []).append(event)

    def decide(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Accept):
                to = self.asked.pop(decision.worker)
                if isinstance(to, ComputeRequest):
                    assert isinstance(decision.reply, ComputeReply)
                    assert decision.reply.answers(to)
                else:
                    assert isinstance(decision.reply, ReduceReply)
                    assert decision.reply.answers(to)
            elif isinstance(decision, Recompute):
                assert self.asked.pop(decision.worker) == decision.request
                if decision.reason == "late":
                    self.late_since_s[decision.worker] = self.now_s
            elif isinstance(decision, Kill):
                assert self.now_s - self.late_since_s[decision.worker] > KILL_AFTER_S
        assert self.members.is_waiting == bool(self.asked)

    def hear(self, event: Event) -> None:
        self.decide(self.members.handle(event, self.now_s))

    def reply(self, worker: int, which: int) -> None:
        """One of all replies that the worker ever owed, as often as it likes."""
        events = self.sent.get(worker, [])
        if events:
            self.hear(events[which % len(events)])
            self.late_since_s.pop(worker, None)

    def lie(self, worker: int, which: int) -> None:
        """A reply that differs from the right one in one number, or in its kind."""
        to = self.asked.get(worker)
        if to is None:
            return
        wrong: list[Event]
        if isinstance(to, ComputeRequest):
            right = reply(to)
            changes = [
                {name: getattr(to, name) + 1} for name in right._fields[:5] if name != "kind"
            ]
            wrong = [Replied(worker, right._replace(**change)) for change in changes]
            wrong.append(Replied(worker, right._replace(kind=RequestKind(int(to.kind) % 3 + 1))))
            wrong.append(Reduced(worker, ReduceReply(*to[:4], ())))
        else:
            done = summed(to)
            changes = [{name: getattr(to, name) + 1} for name in done._fields[:4]]
            wrong = [Reduced(worker, done._replace(**change)) for change in changes]
            kind = RequestKind.GRADIENT
            wrong.append(Replied(worker, reply(ComputeRequest(1, kind, *to[1:4], 0, 0))))
        self.hear(wrong[which % len(wrong)])
        assert self.asked[worker] == to


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "reply", "reply", "lie", "lose", "join", "jump", "tick"]),
        st.integers(0, 4),
        st.integers(0, 30),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(actions=ACTIONS)
def test_no_interleaving_loses_a_block_accepts_two_replies_or_a_stale_one_or_does_not_end(
    actions: list[tuple[str, int, int]],
) -> None:
    workers = Workers()
    for action, worker, number in actions:
        if action == "ask":
            workers.ask(number % 4)
        elif action == "reply":
            workers.reply(worker, number)
        elif action == "lie":
            workers.lie(worker, number)
        elif action == "jump":
            workers.now_s += 0.01 * 1.4**number
        elif action == "tick":
            workers.decide(workers.members.tick(workers.now_s))
        else:
            is_lost = action == "lose"
            workers.hear(Lost(worker, "killed") if is_lost else joined(worker))
            workers.late_since_s.pop(worker, None)
            assert (worker in workers.members.connected) is not is_lost
    while workers.members.is_waiting:
        num_open = len(workers.asked)
        workers.now_s = max(workers.now_s, workers.members.next_deadline())
        workers.decide(workers.members.tick(workers.now_s))
        assert len(workers.asked) < num_open
    assert workers.asked == {}
