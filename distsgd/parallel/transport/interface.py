"""What a transport is: how weights and partials travel between the server and its workers.

In the loop (`server.step_runner`), `pool.gather` goes through here. The server's side sends
requests and collects events; the worker's side receives requests and replies. Three transports keep
this contract, and one test holds them to it: `in_process`, `shared_memory` and `zeromq`.
Arrays never travel through Ray, and nothing is computed here.

Legend: P parameters, S slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.messages import ComputeReply, ComputeRequest, WorkerInfo

HANDSHAKE_TIMEOUT_S = 5.0
SPIN_S = 0.002  # How long a process that spins looks for a message before it sleeps.
# Why a worker is lost that replies without a request: a flood of replies would keep a step from
# noticing which worker is late.
UNASKED = "it sent a reply to no request"


@dataclass(frozen=True, slots=True)
class BufferLayout:
    """The memory that weights and partials lie in, as both sides see it.

    Weights ``[P]`` and, for each worker, slots ``[S, P]`` for its partials.
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
        return self.num_slots * self._slot_stride

    @property
    def _slot_stride(self) -> int:
        return max(64, math.ceil(self.weights_bytes / 64) * 64)

    def weights(self, buffer: Any) -> Array:
        """The weights in `buffer`; shape ``[P]``."""
        return np.frombuffer(buffer, self.dtype, self.num_parameters)

    def slots(self, buffer: Any) -> Array:
        """The slots in `buffer`; shape ``[S, P]``."""
        itemsize = np.dtype(self.dtype).itemsize
        return np.ndarray(
            (self.num_slots, self.num_parameters),
            self.dtype,
            buffer,
            strides=(self._slot_stride, itemsize),
        )


AddressKind = Literal["shared_memory", "zmq"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what proves to both sides that they belong to one run.

    Ray hands it out.
    """

    kind: AddressKind
    name: str
    secret: bytes
    incarnation: int
    public_key: bytes = b""  # The server's, for CURVE.
    layout: BufferLayout | None = None


class Joined(NamedTuple):
    """A worker has connected and can be sent requests."""

    worker: int
    description: WorkerInfo


class Replied(NamedTuple):
    """A worker has replied; its partials can be read until it is sent the next request."""

    worker: int
    reply: ComputeReply


class Lost(NamedTuple):
    """A worker is gone; requests that it has not answered never will be."""

    worker: int
    reason: str


Event = Joined | Replied | Lost


class Transport(Protocol):
    """The server's side."""

    weights: Array  # [P], written by the server between steps, seen by all workers.
    can_spin: bool  # Is there anything to look for without falling asleep?

    def send(self, worker: int, request: ComputeRequest) -> None:
        """Send `request`, with the weights as they are now.

        A worker that is gone shows as `Lost` in `wait`.
        """

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:
        """What has happened, in any order; blocks until something has, or `timeout_s` seconds.

        Looks for `spin_s` of them without falling asleep, where that makes sense: to wake up an
        idle core takes longer than a small step.
        """

    def partials(self, worker: int) -> Array:
        """The gradient sums of the worker's last reply.

        Shape ``[S, P]``, one row for each of its nodes; read only.
        """

    def pid(self, worker: int) -> int | None:
        """The process of `worker` on this node; None where the kernel does not vouch for it."""

    def kill(self, worker: int) -> None:
        """End the process of `worker`, which does not answer; it shows as `Lost`."""

    def close(self) -> None:
        """Tell the workers that there is nothing more to do, and free everything."""


class Channel(Protocol):
    """The worker's side."""

    weights: Array  # [P], read-only.
    slots: Array  # [S, P], where the worker writes its partials.

    def receive(self, timeout_s: float, *, spin_s: float = 0.0) -> ComputeRequest | None:
        """The next request; None after `timeout_s` seconds without one; `spin_s` as in `wait`.

        Raises:
            ServerGone: The server has closed, or died.
        """

    def reply(self, reply: ComputeReply) -> None:
        """Send `reply` and the slots it speaks of."""

    def close(self) -> None:
        """Leave."""


class Handler(Protocol):
    """What answers requests: a `Runner`, or what stands around one."""

    def describe(self, worker: int) -> WorkerInfo:
        """Which process computes, with what, on which data; `worker` is its number in the run."""

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        """From now on, read the weights and write partials here."""

    def compute(self, request: ComputeRequest) -> ComputeReply:
        """Compute the blocks of `request` and leave their sums in the first slots."""

    def prefetch(self, request: ComputeRequest) -> None:
        """Read rows of the step after `request`, while the server has other things to do."""


class ServerGone(Exception):  # noqa: N818 -- how a worker's service ends, not a fault.
    """There is no server at the other end any more."""
