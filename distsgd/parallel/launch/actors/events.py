"""How events of the loop come from the server's process to the driver's: in order, each once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.server.step_runner import EpochEnd, Event, StepView
from distsgd.store.logs import EvaluationRow

MOST_WAITING = 64
TAKE_TIMEOUT_S = 300.0
# Of the same step, in the order in which they happen.
_ORDER: dict[type, int] = {EpochEnd: 0, EvaluationRow: 1, StepView: 2}


class EventQueue:
    """Events on their way from the server's loop to a driver in another process, in order.

    At most `MOST_WAITING` wait; then the loop waits, `timeout_s` seconds at most.
    """

    def __init__(self, timeout_s: float = TAKE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, event: Event) -> None:
        """Add `event`; blocks while the queue is full, and does nothing once it is closed.

        Raises:
            WaitTimeoutError: The driver takes none any more.
        """
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._is_closed or len(self._events) < MOST_WAITING, self._timeout_s
            )
            if not has_room:
                raise WaitTimeoutError(
                    f"the driver to take the events before step {event.step} "
                    "(one of its callbacks does not return)",
                    self._timeout_s,
                )
            if not self._is_closed:
                self._events.append(event)
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Event]:
        """All events that wait; blocks up to `timeout_s` seconds until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._events, timeout_s)
            events = list(self._events)
            self._events.clear()
            self._changed.notify_all()
            return events

    def close(self) -> None:
        """Nothing observes any more: forget what waits, and never wait again."""
        with self._changed:
            self._is_closed = True
            self._events.clear()
            self._changed.notify_all()


class Delivery:
    """The driver's side: every event once, in order, also where a server died and redid steps."""

    def __init__(self, notify: Callable[[Event], None]) -> None:
        self._notify = notify
        self._incarnation = 0
        self._last = (-1, 0)  # Step and order of the last event.
        self._is_redoing = False
        self._error: Exception | None = None

    def deliver(self, events: Sequence[Event], incarnation: int) -> bool:
        """Call back for what was not shown yet; False once a callback has raised an error."""
        if incarnation != self._incarnation:
            self._incarnation, self._is_redoing = incarnation, True
        for event in events:
            if self._error is not None:
                break
            now = (event.step, _ORDER[type(event)])
            if self._is_redoing and now <= self._last:
                continue
            self._is_redoing, self._last = False, now
            try:
                self._notify(event)
            except Exception as error:  # noqa: BLE001 -- raised again when the run has ended.
                self._error = error
        return self._error is None

    def end(self) -> None:
        """The run has ended; raises what the callback raised."""
        if self._error is not None:
            raise self._error
