"""Between the transport and the members: waits for events, and carries out what is decided.

The only place of the pool that waits. It decides nothing and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from distsgd.parallel.pool.members import Accept, Decision, Kill, Members, Recompute, Say, Welcome
from distsgd.parallel.transport.interface import Transport


class Dispatcher:
    """Feeds `members` with the events of `transport`; its times are those of `clock`."""

    def __init__(
        self,
        transport: Transport,
        members: Members,
        *,
        on_welcome: Callable[[], None],
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._transport, self._members = transport, members
        self._on_welcome, self._say, self.clock = on_welcome, say, clock

    def decisions(self, *, spin_s: float = 0.0) -> Iterator[Accept | Recompute]:
        """One for each request on its way, as they come; blocks until the last deadline at most.

        Waits as `Transport.wait` does. A decision is to be carried out before the next is taken.
        """
        members = self._members
        while members.is_waiting:
            timeout_s = max(0.0, members.next_deadline() - self.clock())
            events = self._transport.wait(timeout_s, spin_s=spin_s)
            now_s = self.clock()
            if not events:  # A reply that has arrived counts, however late it is.
                yield from self.carry_out(members.tick(now_s))
            for event in events:
                yield from self.carry_out(members.handle(event, now_s))

    def look(self, timeout_s: float = 0.0) -> None:
        """Who has come, gone or stopped, while no request is on its way; blocks for `timeout_s`."""
        for event in self._transport.wait(timeout_s):
            assert not self.carry_out(self._members.handle(event, self.clock()))
        assert not self.carry_out(self._members.tick(self.clock()))

    def carry_out(self, decisions: Sequence[Decision]) -> list[Accept | Recompute]:
        """Do what is decided, and return what only the caller can do."""
        left: list[Accept | Recompute] = []
        for decision in decisions:
            if isinstance(decision, Say):
                self._say(decision.text)
            elif isinstance(decision, Kill):
                self._transport.kill(decision.worker)
            elif isinstance(decision, Welcome):
                self._on_welcome()
            else:
                left.append(decision)
        return left
