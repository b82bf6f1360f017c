"""The transport of a server that computes by itself.

No Ray, no sockets, the same code on both sides of it.
"""

from __future__ import annotations

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.messages import ComputeRequest
from distsgd.parallel.transport.interface import BufferLayout, Event, Reported, Worker


class InProcessTransport:
    """One worker, number `worker_id`, that computes while it is sent an order."""

    def __init__(
        self, layout: BufferLayout, worker: Worker, *, weights: Array, worker_id: int = 0
    ) -> None:
        self.weights = weights
        self._worker = worker
        self._worker_id = worker_id
        self._slots = np.zeros((layout.num_slots, layout.num_parameters), layout.dtype)
        self._events: list[Event] = []
        readable = weights.view()
        readable.flags.writeable = False
        worker.attach(readable, self._slots)

    def send(self, worker: int, order: ComputeRequest) -> None:
        """Compute `order` now."""
        assert worker == self._worker_id
        self._events.append(Reported(worker, self._worker.compute(order)))

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:  # noqa: ARG002 -- everything has happened already.
        """The reports since the last call."""
        events, self._events = self._events, []
        return events

    def partials(self, worker: int) -> Array:
        """The worker's slots, shape ``[S, P]``."""
        assert worker == self._worker_id
        return self._slots

    def end(self, worker: int) -> None:
        """Nobody can be late who computes while it is sent an order."""

    def close(self) -> None:
        """Nothing to free."""
