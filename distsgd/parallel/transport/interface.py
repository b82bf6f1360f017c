"""What an transport is: the way of weights and partials between the server and its workers.

Second of the four lines of the step loop: ``partials = transport.gather(step, plan)``. The server's
side hands out orders and collects events; the worker's side receives orders and reports. Three
transports keep this contract, and one test holds them to it: `in_process`, `shared_memory` and
`zeromq`. Arrays never travel through Ray.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.messages import (
    ComputeReply,
    ComputeRequest,
    ReduceReply,
    ReduceRequest,
    WorkerInfo,
)

HANDSHAKE_TIMEOUT_S = 5.0
SPIN_S = 0.002  # How long those look for a message who stay awake, before they sleep.
# Why a worker is lost that reports without an order: a flood of reports would keep a step from
# noticing who is late.
UNASKED = "it reported what nobody had asked for"


@dataclass(frozen=True, slots=True)
class BufferLayout:
    """The shapes both sides share.

    Weights ``[P]`` and, for each worker, slots ``[S, P]`` for its partials, with one more behind
    them for what it sums of others'.
    """

    num_parameters: int
    num_slots: int
    dtype: str

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights."""
        return self.num_parameters * np.dtype(self.dtype).itemsize

    @property
    def slots_bytes(self) -> int:
        """Bytes of one worker's slots, each starting on a cache line."""
        return (self.num_slots + 1) * self._slot_stride

    @property
    def _slot_stride(self) -> int:
        return max(64, math.ceil(self.weights_bytes / 64) * 64)

    def weights(self, buffer: Any) -> Array:
        """The weights in `buffer`; shape ``[P]``."""
        return np.frombuffer(buffer, self.dtype, self.num_parameters)

    def slots(self, buffer: Any) -> Array:
        """The slots in `buffer`; shape ``[S, P]``."""
        return self._rows(buffer)[: self.num_slots]

    def reduced_slice(self, buffer: Any) -> Array:
        """The slot behind them; shape ``[P]``."""
        row: Array = self._rows(buffer)[self.num_slots]
        return row

    def _rows(self, buffer: Any) -> Array:
        itemsize = np.dtype(self.dtype).itemsize
        return np.ndarray(
            (self.num_slots + 1, self.num_parameters),
            self.dtype,
            buffer,
            strides=(self._slot_stride, itemsize),
        )


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what proves to both sides that they belong to one run.

    Ray hands it out.
    """

    kind: Literal["shared_memory", "zmq"]
    name: str
    secret: bytes
    incarnation: int
    public_key: bytes = b""  # The server's, for CURVE.
    layout: BufferLayout | None = None


class Joined(NamedTuple):
    """A worker has connected and can be sent orders."""

    worker: int
    description: WorkerInfo


class Reported(NamedTuple):
    """A worker has answered; its partials can be read until it is sent the next order."""

    worker: int
    report: ComputeReply


class Summed(NamedTuple):
    """A worker has summed a range; it can be read until the worker is sent the next order."""

    worker: int
    report: ReduceReply


class Lost(NamedTuple):
    """A worker is gone; orders it has not answered will never be."""

    worker: int
    reason: str


Event = Joined | Reported | Summed | Lost


class Transport(Protocol):
    """The server's side."""

    weights: Array  # [P], written by the server between steps, seen by all workers.

    def send(self, worker: int, order: ComputeRequest) -> None:
        """Send `order`, with the weights as they are now.

        A worker that is gone shows as `Lost` in `wait`.
        """

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:
        """What has happened, in any order; blocks until something has, or `timeout_s` seconds.

        Looks for `spin_s` of them without falling asleep, where that makes sense: to wake up an
        idle core takes longer than a small step.
        """

    def partials(self, worker: int) -> Array:
        """The gradient sums of the worker's last report.

        Shape ``[S, P]``, one row for each of its nodes; read only.
        """

    def end(self, worker: int) -> None:
        """Have the process of `worker`, which does not answer, ended; it shows as `Lost`."""

    def close(self) -> None:
        """Tell the workers that there is nothing more to do, and free everything."""


@runtime_checkable
class SharingTransport(Transport, Protocol):
    """One whose workers can read each other's slots, and so share the summing."""

    def can_share(self, workers: Collection[int]) -> bool:
        """Could any of `workers` read what all of them have reported?"""

    def send_reduce(self, worker: int, order: ReduceRequest) -> None:
        """Send `order`, of whose workers `can_share` is true; it shows as `Summed` in `wait`."""

    def reduced_slice(self, worker: int) -> Array:
        """Where `worker` leaves the ranges it sums; shape ``[P]``, read only."""


class Channel(Protocol):
    """The worker's side."""

    weights: Array  # [P], read-only.
    slots: Array  # [S, P], where the worker writes its partials.

    def receive(self, timeout_s: float, *, spin_s: float = 0.0) -> ComputeRequest | None:
        """The next order; None after `timeout_s` seconds without a message; `spin_s` as in `wait`.

        An transport may do meanwhile what its server asks of it alone.

        Raises:
            ServerGone: The server has closed, or died.
        """

    def report(self, report: ComputeReply) -> None:
        """Send `report` and the slots it speaks of."""

    def close(self) -> None:
        """Leave."""


class ServerGone(Exception):  # noqa: N818 -- how a worker's service ends, not a fault.
    """There is no server at the other end any more."""


class Seen(NamedTuple):
    """What a worker saw of the rows of a training step, in block order; arrays of its own."""

    predictions_BO: Array
    deltas_BO: Array  # Gradient of each row's own loss by the network's output.
    targets: Array


class Worker(Protocol):
    """What computes blocks; pure between orders.

    So that any worker may be asked for any block at any time.
    """

    def describe(self, worker: int) -> WorkerInfo:
        """Who computes, with what, on which data; `worker` is its number in the run."""

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        """From now on, read the weights and write partials here."""

    def compute(self, order: ComputeRequest) -> ComputeReply:
        """Compute the blocks of `order` and leave their sums in the first slots."""

    def read_ahead(self, order: ComputeRequest) -> None:
        """Read rows of the step after `order`, while the server has other things to do."""


class OwnWorker(Worker, Protocol):
    """The server's own: it can also be asked what a step looks like from inside."""

    def view(self, step: int) -> Seen:
        """Look at all rows of training step `step`; no slot is written."""
