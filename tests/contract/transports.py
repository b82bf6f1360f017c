"""Where servers and workers of a test of transports live. No tests here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic
from typing import Any, Literal, TypeVar

from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, Sums, WorkerInfo
from distsgd.parallel.service import serve
from distsgd.parallel.transport import connect, open_transport
from distsgd.parallel.transport.interface import (
    BufferLayout,
    Channel,
    Event,
    Joined,
    Replied,
    Transport,
)
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.transport.zeromq import ZeroMQTransport
from distsgd.parallel.tree import most_nodes
from tests.fakes import FakeWorker, small_blocks

Served = SharedMemoryTransport | ZeroMQTransport
T = TypeVar("T")
PATIENCE_S = 20.0
SECRET = bytes(range(32))
SAMPLER = small_blocks(100, 64, lanes=4, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(21, most_nodes(SAMPLER.most_leaves), "float32")
KINDS: list[Literal["shared_memory", "zmq"]] = ["shared_memory", "zmq"]
NODES = (Sums(1, 0.5, 0, 0.0, 0.0),)


def request_for(
    step: int, first: int = 0, last: int | None = None, kind: RequestKind = RequestKind.GRADIENT
) -> ComputeRequest:
    last = len(SAMPLER.partition(step).blocks) if last is None else last
    return ComputeRequest(1, kind, step, first, last, 0, 0)


def reply_to(asked: ComputeRequest, nodes: tuple[Sums, ...] = NODES) -> ComputeReply:
    return ComputeReply(*asked[:5], 1.0, 2.0, nodes)


def until(transport: Transport, *wanted: type[Event]) -> list[Event]:
    """All events until each of `wanted` was among them."""
    events: list[Event] = []
    deadline = monotonic() + PATIENCE_S
    while not all(any(isinstance(event, kind) for event in events) for kind in wanted):
        assert monotonic() < deadline, f"waited for {wanted}, saw {events}"
        events += transport.wait(0.1)
    return events


class Place:
    """Where servers and workers of one test live."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.pool = stack.enter_context(ThreadPoolExecutor(8))
        self.is_open: dict[int, Served] = {}

    def open(self, kind: Literal["shared_memory", "zmq"]) -> Served:
        transport = open_transport(kind, LAYOUT, secret=SECRET, incarnation=1, host="127.0.0.1")
        self.is_open[id(transport)] = transport
        self.stack.callback(self.close, transport)
        return transport

    def close(self, transport: Served) -> None:
        """The end of a server, unless it has ended already."""
        if self.is_open.pop(id(transport), None):
            transport.close()

    def start(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        return self.pool.submit(function, *arguments)

    def join(
        self, transport: Served, worker: int, description: WorkerInfo | None = None
    ) -> tuple[Channel, list[Event]]:
        """A worker's channel, connected, and what the server saw of it."""
        description = description or FakeWorker(SAMPLER).describe(worker)
        future = self.start(connect, transport.address, description)
        events = until(transport, Joined)
        channel = future.result(PATIENCE_S)
        self.stack.callback(channel.close)
        return channel, events

    def serve(self, transport: Served, worker: int, fake: FakeWorker) -> Future[int]:
        future = self.start(serve, fake, transport.address, worker)
        assert isinstance(until(transport, Joined)[-1], Joined)
        return future


def answer(transport: Transport, asked: ComputeRequest) -> ComputeReply:
    transport.send(0, asked)
    (event,) = until(transport, Replied)
    assert isinstance(event, Replied)
    assert event.worker == 0
    assert event.reply.answers(asked)
    return event.reply
