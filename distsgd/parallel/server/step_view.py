"""Events of the loop, for callbacks: each step, each end of an epoch, each evaluation.

Nothing of them is made, and nothing travels, unless it is observed. The server's own worker
computes the view of a step from the same rows and weights as the step itself, so it is the same for
any number of workers.

Legend: B rows of the mini-batch in block order, O outputs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

from distsgd.base.arrays import Array
from distsgd.errors import WaitTimeoutError
from distsgd.nn.weights import in_short
from distsgd.store.logs import EvaluationRow

MOST_WAITING = 64
TAKE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, repr=False)
class StepView:
    """One step, before its update.

    Attributes:
        step: Updates made before it.
        weights: By parameter name; copies.
        predictions: ``[B, O]``, what the model says of each row of the mini-batch.
        deltas: ``[B, O]``, the gradient of each row's own loss by the output layer's output (by its
            weighted input where the loss brings the activation along): prediction - goal for
            "quadratic" and for the cross-entropies.
        targets: ``[B, O]`` numbers or ``[B]`` classes.
        loss: Mean over the rows.
    """

    step: int
    weights: dict[str, Array]
    predictions: Array
    deltas: Array
    targets: Array
    loss: float

    def __repr__(self) -> str:
        rows, outputs = self.predictions.shape[0], self.predictions.shape[1:]
        shape = "x".join(map(str, (rows, *outputs)))
        return (
            f"StepView(step={self.step}, loss={self.loss:.4g}, "
            f"weights=<{in_short(self.weights)}>, predictions=<{shape}>)"
        )


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """An epoch that has ended.

    Attributes:
        step: Updates made so far.
        epoch: Passes over the rows so far.
        train_loss: Mean over the rows of this epoch, each before the update of its step.
    """

    step: int
    epoch: int
    train_loss: float | None


Event: TypeAlias = StepView | EpochEnd | EvaluationRow
OnStep = Callable[[StepView], None]
# Of the same step, in the order in which they happen.
_ORDER: dict[type, int] = {EpochEnd: 0, EvaluationRow: 1, StepView: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observers:
    """What is called with each event of the loop; an event that nothing observes is not made."""

    on_step: OnStep | None = None
    on_epoch_end: Callable[[EpochEnd], None] | None = None
    on_evaluate: Callable[[EvaluationRow], None] | None = None

    @property
    def observed(self) -> tuple[str, ...]:
        """The names of those that are set."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    def notify(self, event: Event) -> None:
        """Call the one that observes such events, if any."""
        if isinstance(event, StepView):
            call: Callable[..., None] | None = self.on_step
        else:
            call = self.on_epoch_end if isinstance(event, EpochEnd) else self.on_evaluate
        if call is not None:
            call(event)


NO_OBSERVERS = Observers()


class CallbackError(Exception):
    """`error` came out of a callback that observed the loop; never leaves the server."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


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
