"""Whatever happens in whatever order: each block is decided once, and it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.members import (
    KILL_AFTER_S,
    Accept,
    Decision,
    Kill,
    Members,
    Recompute,
)
from distsgd.parallel.transport.interface import Event, Lost, Replied
from tests.unit.parallel.pool.member_events import (
    joined,
    members_of,
    reply,
    request,
)


@dataclass
class Workers:
    """What workers owe a server: a model of all that can come in, in any order."""

    members: Members = field(default_factory=lambda: members_of(3))
    now_s: float = 0.0
    step: int = 0
    asked: dict[int, ComputeRequest] = field(
        default_factory=dict
    )  # What must be decided, once each.
    sent: dict[int, list[Event]] = field(default_factory=dict)  # Replies that may still come.
    late_since_s: dict[int, float] = field(default_factory=dict)

    def ask(self, kind: int) -> None:
        """Each fit worker, for a block."""
        if self.members.is_waiting:
            return
        self.step += 1
        fit = self.members.fit(self.step)
        assert set(fit) <= set(self.members.connected)
        assert not set(fit) & set(self.late_since_s)
        for worker in fit:
            to = request(worker, worker + 1, self.step, RequestKind(kind + 1))
            self.members.ask(worker, to, num_rows=3, now_s=self.now_s)
            self.asked[worker] = to
            self.sent.setdefault(worker, []).append(Replied(worker, reply(to)))

    def decide(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Accept):
                assert decision.reply.answers(self.asked.pop(decision.worker))
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
        """A reply that differs from the right one in one number."""
        to = self.asked.get(worker)
        if to is None:
            return
        right = reply(to)
        changes = [{name: getattr(to, name) + 1} for name in right._fields[:5] if name != "kind"]
        wrong = [right._replace(**change) for change in changes]
        wrong.append(right._replace(kind=RequestKind(int(to.kind) % 3 + 1)))
        self.hear(Replied(worker, wrong[which % len(wrong)]))
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
            workers.ask(number % 3)
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
