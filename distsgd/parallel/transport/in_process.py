"""A transport within one process: its worker computes while it is sent a request.

In the loop (`server.step_runner`), `pool.gather` reaches the server's own worker through it. No
I/O here.

Legend: P parameters, S slots.
"""

from __future__ import annotations

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.messages import ComputeRequest
from distsgd.parallel.transport.interface import BufferLayout, Event, Handler, Replied


class InProcessTransport:
    """The transport of a server that computes by itself: no Ray, no sockets.

    One worker, number `worker_id`, that computes while it is sent a request.
    """

    can_spin = False

    def __init__(
        self, layout: BufferLayout, handler: Handler, *, weights: Array, worker_id: int = 0
    ) -> None:
        self.weights = weights
        self._handler = handler
        self._worker_id = worker_id
        self._slots = np.zeros((layout.num_slots, layout.num_parameters), layout.dtype)
        self._events: list[Event] = []
        readable = weights.view()
        readable.flags.writeable = False
        handler.attach(readable, self._slots)

    def send(self, worker: int, request: ComputeRequest) -> None:
        """Have `request` computed now."""
        assert worker == self._worker_id
        self._events.append(Replied(worker, self._handler.compute(request)))

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:  # noqa: ARG002 -- everything has happened already.
        """The replies since the last call."""
        events, self._events = self._events, []
        return events

    def partials(self, worker: int) -> Array:
        """The worker's slots, shape ``[S, P]``."""
        assert worker == self._worker_id
        return self._slots

    def pid(self, worker: int) -> int | None:  # noqa: ARG002 -- none of its own.
        """None: it has no process of its own."""
        return None

    def kill(self, worker: int) -> None:
        """Nothing: a worker that computes while it is sent a request cannot be late."""

    def close(self) -> None:
        """Nothing to free."""
