"""Tables of events: what is decided about workers that join, answer, are late or lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from distsgd.errors import ClusterError, NumericsError
from distsgd.parallel.messages import (
    ComputeRequest,
    RequestKind,
)
from distsgd.parallel.pool.members import (
    KILL_AFTER_S,
    PATIENCE_FACTOR,
    PATIENCE_FLOOR_S,
    Accept,
    Decision,
    Kill,
    Members,
    Recompute,
    Say,
    Welcome,
)
from distsgd.parallel.transport.interface import Event, Joined, Lost, Replied
from tests.unit.parallel.pool.member_events import (
    TIMEOUT_S,
    joined,
    late,
    members_of,
    reply,
    request,
)


@dataclass(frozen=True)
class Ask:
    worker: int
    request: ComputeRequest
    num_rows: int = 10


TICK = "tick"
Row = tuple[float, Event | Ask | str, Sequence[Decision]]


def decided(members: Members, stimulus: Event | Ask | str, now_s: float) -> Sequence[Decision]:
    if isinstance(stimulus, str):
        return members.tick(now_s)
    if not isinstance(stimulus, Ask):
        return members.handle(stimulus, now_s)
    members.ask(stimulus.worker, stimulus.request, num_rows=stimulus.num_rows, now_s=now_s)
    return ()


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
}


@pytest.mark.parametrize("name", TABLES)
def test_decisions_are_those_of_the_table(name: str) -> None:
    members = members_of(2)
    for now_s, stimulus, expected in TABLES[name]:
        assert list(decided(members, stimulus, now_s)) == list(expected), (now_s, stimulus)


def test_member_on_another_node_is_told_with_it() -> None:
    event = joined(0)
    there = event._replace(description=replace(event.description, host="there"))
    assert Say("worker 0 has joined (process 100 on there)") in members_of(0).handle(there, 0.0)


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
        (
            {"version": "other"},
            ClusterError,
            "worker 1 on node here runs distsgd other, the server on node here 1",
        ),
        ({"data_digest": "other"}, ClusterError, "worker 1 on node .* sees other data than"),
        (
            {"probe": "other"},
            NumericsError,
            r"worker 1 on node here computes other bits than the server on node here: it has numpy",
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


def test_membership_says_where_workers_are_and_how_often_one_came_again() -> None:
    members = members_of(2)
    seen = [members.membership]
    for event in (Lost(0, "killed"), joined(0)):
        members.handle(event, 0.1)
        seen.append(members.membership)
    assert [found.workers for found in seen] == [(0, 1), (1,), (0, 1)]
    assert [found.nodes for found in seen] == [("here",) * 2, ("here",), ("here",) * 2]
    assert [found.num_rejoined for found in seen] == [0, 0, 1]
