"""What a step looks like from inside: for whoever wants to watch the numbers of every step.

Nothing of it is made, and nothing travels, unless somebody looks. The server's own worker computes
it from the same rows and weights as the step itself, so it is the same for any number of workers.

Legend: B rows of the mini-batch in block order, O outputs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from distsgd.base.arrays import Array
from distsgd.errors import WaitTimeoutError
from distsgd.nn.weights import in_short

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


OnStep = Callable[[StepView], None]


class CallbackError(Exception):
    """`error` came out of a callback that was watching steps; never leaves the server."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class ViewQueue:
    """Views on their way from the server's loop to a driver in another process, in order.

    At most `MOST_WAITING` wait; then the loop waits, `timeout_s` seconds at most.
    """

    def __init__(self, timeout_s: float = TAKE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._views: deque[StepView] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, view: StepView) -> None:
        """Add `view`; blocks while the queue is full, and does nothing once it is closed.

        Raises:
            WaitTimeoutError: Nobody takes views any more; names the driver.
        """
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._is_closed or len(self._views) < MOST_WAITING, self._timeout_s
            )
            if not has_room:
                raise WaitTimeoutError(
                    f"the driver to take the views of the steps before step {view.step} "
                    "(its on_step callback does not return)",
                    self._timeout_s,
                )
            if not self._is_closed:
                self._views.append(view)
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[StepView]:
        """All views that wait; blocks up to `timeout_s` seconds until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._views, timeout_s)
            views = list(self._views)
            self._views.clear()
            self._changed.notify_all()
            return views

    def close(self) -> None:
        """Nobody looks any more: forget what waits, and never wait again."""
        with self._changed:
            self._is_closed = True
            self._views.clear()
            self._changed.notify_all()


class Delivery:
    """The driver's side: every step once, in order, also where a server died and redid some."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._incarnation = 0
        self._last_step = -1
        self._is_redoing = False
        self._error: Exception | None = None

    def deliver(self, views: list[StepView], incarnation: int) -> bool:
        """Call back for what was not shown yet; False once the callback has raised an error."""
        if incarnation != self._incarnation:
            self._incarnation, self._is_redoing = incarnation, True
        for view in views:
            if self._error is not None:
                break
            if self._is_redoing and view.step <= self._last_step:
                continue
            self._is_redoing, self._last_step = False, view.step
            try:
                self._on_step(view)
            except Exception as error:  # noqa: BLE001 -- raised again when the run has ended.
                self._error = error
        return self._error is None

    def end(self) -> None:
        """The run has ended; raises what the callback raised."""
        if self._error is not None:
            raise self._error
