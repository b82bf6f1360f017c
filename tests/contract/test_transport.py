from __future__ import annotations

import fcntl
import mmap
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import Any, Literal, TypeVar

import numpy as np
import pytest
import zmq

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, WorkerInfo
from distsgd.parallel.service import serve
from distsgd.parallel.transport import connect, open_transport, shared_memory, zeromq
from distsgd.parallel.transport.buffers import BufferLayout
from distsgd.parallel.transport.in_process import InProcessTransport
from distsgd.parallel.transport.interface import (
    Address,
    Channel,
    Event,
    Joined,
    Lost,
    Replied,
    ServerGone,
    Transport,
)
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.transport.shared_memory_channel import SharedMemoryChannel
from distsgd.parallel.transport.zeromq import ZeroMQTransport
from distsgd.parallel.tree import Sums, most_nodes
from tests.fakes import NUM_TEST_ROWS, FakeWorker, block_gradient, serve_fake, small_blocks

Served = SharedMemoryTransport | ZeroMQTransport
T = TypeVar("T")
PATIENCE_S = 20.0
SECRET = bytes(range(32))
SAMPLER = small_blocks(100, 64, lanes=4, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(21, most_nodes(SAMPLER.most_leaves), "float32")
KINDS: list[Literal["shared_memory", "zmq"]] = ["shared_memory", "zmq"]
NODES = (Sums(1, 0.5, 0, 0.0, 0.0),)

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="needs memfd (Linux)")


def order(
    step: int, first: int = 0, last: int | None = None, kind: RequestKind = RequestKind.GRADIENT
) -> ComputeRequest:
    last = len(SAMPLER.partition(step).blocks) if last is None else last
    return ComputeRequest(1, kind, step, first, last, 0, 0)


def report_on(asked: ComputeRequest, nodes: tuple[Sums, ...] = NODES) -> ComputeReply:
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


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack)


@pytest.fixture(params=["in_process", "shared_memory", "zmq"])
def served(request: pytest.FixtureRequest, place: Place) -> Transport:
    """An transport with a fake worker, number 0, behind it."""
    if request.param == "in_process":
        return InProcessTransport(
            LAYOUT, FakeWorker(SAMPLER), weights=np.zeros(LAYOUT.num_parameters, LAYOUT.dtype)
        )
    transport = place.open(request.param)
    place.serve(transport, 0, FakeWorker(SAMPLER))
    return transport


@pytest.fixture(params=KINDS)
def transport(request: pytest.FixtureRequest, place: Place) -> Served:
    """An transport nobody is connected to yet."""
    return place.open(request.param)


def answer(transport: Transport, asked: ComputeRequest) -> ComputeReply:
    transport.send(0, asked)
    (event,) = until(transport, Replied)
    assert isinstance(event, Replied)
    assert event.worker == 0
    assert event.reply.answers(asked)
    return event.reply


def test_partials_are_those_of_the_order_at_the_weights_of_its_time(served: Transport) -> None:
    for step in range(3):
        served.weights[:] = np.arange(LAYOUT.num_parameters) * (step + 1)
        for first, block in enumerate(SAMPLER.partition(step).blocks):
            report = answer(served, order(step, first, first + 1))
            gradient_P, sums = block_gradient(served.weights, step, block)
            assert report.nodes == (sums,)
            assert served.partials(0)[0].tobytes() == gradient_P.tobytes()


def test_order_of_many_blocks_gives_a_partial_for_each_node(served: Transport) -> None:
    slots = np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), LAYOUT.dtype)
    fake = FakeWorker(SAMPLER)
    fake.attach(served.weights, slots)
    last = len(SAMPLER.partition(0).blocks)
    for first in range(last):
        asked = order(0, first, max(first + 1, last - 1))
        report, expected = answer(served, asked), fake.compute(asked)
        assert report.nodes == expected.nodes
        num_nodes = len(report.nodes)
        assert served.partials(0)[:num_nodes].tobytes() == slots[:num_nodes].tobytes()


def test_evaluation_brings_sums_without_partials(served: Transport) -> None:
    blocks = SAMPLER.blocking.evaluation(NUM_TEST_ROWS).blocks
    for first in range(len(blocks)):
        report = answer(served, order(0, first, len(blocks), RequestKind.EVALUATE))
        assert sum(node.num_samples for node in report.nodes) == NUM_TEST_ROWS - blocks[first].first


@pytest.mark.parametrize("spin_s", [0.0, 0.005, 5.0])
def test_wait_without_anything_to_happen_ends_in_time(served: Transport, spin_s: float) -> None:
    for timeout_s in (0.0, 0.01):
        started = monotonic()
        assert served.wait(timeout_s, spin_s=spin_s) == []
        assert monotonic() - started < PATIENCE_S


def test_worker_says_who_it_is_and_cannot_write_the_weights(
    place: Place, transport: Served
) -> None:
    channel, events = place.join(transport, 3)
    assert events == [Joined(3, FakeWorker(SAMPLER).describe(3))]
    assert channel.weights.shape == (LAYOUT.num_parameters,)
    assert channel.slots.shape == (LAYOUT.num_slots, LAYOUT.num_parameters)
    assert channel.weights.dtype == channel.slots.dtype == LAYOUT.dtype
    with pytest.raises(ValueError, match="read-only"):
        channel.weights[0] = 1


@pytest.mark.parametrize("spin_s", [0.0, 1.0])
def test_orders_and_reports_travel_whole(place: Place, transport: Served, spin_s: float) -> None:
    channel, _ = place.join(transport, 0)
    for step in range(3):
        asked = ComputeRequest(1, RequestKind.GRADIENT, 2**40 + step, 1, 2, 3, 4, spin=spin_s > 0)
        transport.weights[:] = step
        transport.send(0, asked)
        assert channel.receive(PATIENCE_S, spin_s=spin_s) == asked
        assert set(channel.weights) == {step}
        nodes = tuple(Sums(i, i / 3, i, i / 7, i / 9) for i in range(LAYOUT.num_slots))
        channel.slots[:] = np.arange(LAYOUT.num_slots)[:, None] + step
        channel.reply(report_on(asked, nodes))
        assert until(transport, Replied) == [Replied(0, report_on(asked, nodes))]
        assert np.array_equal(transport.partials(0), channel.slots)


def test_partials_stay_as_they_were_until_the_next_order(place: Place, transport: Served) -> None:
    channels = [place.join(transport, worker)[0] for worker in (0, 1)]
    for worker, channel in enumerate(channels):
        transport.send(worker, order(0))
        channel.slots[:] = worker + 1
        assert channel.receive(PATIENCE_S) == order(0)
        channel.reply(report_on(order(0)))
        until(transport, Replied)
    channels[0].close()
    partials = transport.partials(0)
    until(transport, Lost)
    assert set(partials[0]) == {1}
    assert set(transport.partials(1)[0]) == {2}


@pytest.mark.parametrize("timeout_s", [0.0, 0.01])
def test_receive_without_an_order_ends_in_time(
    place: Place, transport: Served, timeout_s: float
) -> None:
    channel, _ = place.join(transport, 0)
    assert channel.receive(timeout_s) is None
    transport.send(0, order(0))
    assert channel.receive(PATIENCE_S) == order(0)


def test_worker_that_leaves_is_lost_and_the_others_go_on(place: Place, transport: Served) -> None:
    leaving, _ = place.join(transport, 0)
    staying, _ = place.join(transport, 1)
    transport.send(0, order(0))
    leaving.close()
    (lost,) = until(transport, Lost)
    assert isinstance(lost, Lost)
    assert lost.worker == 0
    assert lost.reason
    transport.send(1, order(0))
    assert staying.receive(PATIENCE_S) == order(0)
    staying.reply(report_on(order(0)))
    assert until(transport, Replied) == [Replied(1, report_on(order(0)))]


def test_order_nobody_can_take_shows_as_lost(place: Place, transport: Served) -> None:
    transport.send(7, order(0))
    (lost,) = transport.wait(PATIENCE_S)
    assert isinstance(lost, Lost)
    assert lost.worker == 7
    channel, _ = place.join(transport, 0)
    channel.close()
    until(transport, Lost)
    transport.send(0, order(0))
    assert [event.worker for event in until(transport, Lost)] == [0]


def test_new_process_takes_the_place_of_an_old_one(place: Place, transport: Served) -> None:
    old, _ = place.join(transport, 0)
    new, events = place.join(transport, 0)
    assert [type(event) for event in events] == [Lost, Joined]
    with pytest.raises(ServerGone):
        old.receive(PATIENCE_S)
    transport.send(0, order(0))
    assert new.receive(PATIENCE_S) == order(0)
    new.slots[:] = 5
    old.slots[:] = 6
    new.reply(report_on(order(0)))
    assert until(transport, Replied) == [Replied(0, report_on(order(0)))]
    assert set(transport.partials(0)[0]) == {5}


def test_closing_ends_every_worker(place: Place, transport: Served) -> None:
    asleep, _ = place.join(transport, 0)
    busy, _ = place.join(transport, 1)
    service = place.serve(transport, 2, FakeWorker(SAMPLER))
    for worker in (1, 2):
        transport.send(worker, order(0))
    until(transport, Replied)
    assert busy.receive(PATIENCE_S) == order(0)
    place.close(transport)
    assert service.result(PATIENCE_S) == 1
    for channel in (asleep, busy):
        with pytest.raises(ServerGone):
            channel.receive(PATIENCE_S)


def test_report_to_a_server_that_is_gone_ends_the_service(place: Place, transport: Served) -> None:
    channel, _ = place.join(transport, 0)
    place.close(transport)

    def report_often() -> None:
        for _ in range(10_000):
            channel.reply(report_on(order(0)))

    with pytest.raises(ServerGone):
        place.start(channel.receive, PATIENCE_S).result(PATIENCE_S)
    with pytest.raises(ServerGone):
        place.start(report_often).result(PATIENCE_S)


def test_worker_that_sends_noise_is_lost(place: Place, transport: Served) -> None:
    class Noise(ComputeReply):
        def pack(self) -> bytes:
            return b"noise"

    channel, _ = place.join(transport, 0)
    channel.reply(Noise(*report_on(order(0))))
    (lost,) = until(transport, Lost)
    assert isinstance(lost, Lost)
    assert "no reply" in lost.reason
    with pytest.raises(ServerGone):
        channel.receive(PATIENCE_S)


def test_process_that_is_killed_is_lost(transport: Served) -> None:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=serve_fake, args=(transport.address, 0, SAMPLER))
    process.start()
    try:
        (joined,) = until(transport, Joined)
        assert isinstance(joined, Joined)
        assert joined.description.pid == process.pid
        if isinstance(transport, SharedMemoryTransport):
            assert transport.pid(0) == process.pid
        answer(transport, order(0))
        process.kill()
        (lost,) = until(transport, Lost)
        assert lost.worker == 0
    finally:
        process.kill()
        process.join(PATIENCE_S)
        process.close()


def test_process_that_comes_back_before_the_server_looks_is_kept(transport: Served) -> None:
    spawn = multiprocessing.get_context("spawn")
    is_time = spawn.Event()
    old = spawn.Process(target=serve_fake, args=(transport.address, 0, SAMPLER))
    new = spawn.Process(target=serve_fake, args=(transport.address, 0, SAMPLER, is_time))
    for process in (old, new):
        process.start()
    try:
        until(transport, Joined)
        old.kill()
        old.join(PATIENCE_S)
        is_time.set()
        # The new one's connection may get the descriptor of the old one's.
        ready = transport._socket if isinstance(transport, ZeroMQTransport) else transport._listener
        assert zmq.select([ready], [], [], PATIENCE_S)[0]
        events = until(transport, Lost, Joined) + transport.wait(0.05)
        assert [type(event) for event in events] == [Lost, Joined]
        answer(transport, order(0))
    finally:
        for process in (old, new):
            process.kill()
            process.join(PATIENCE_S)
            process.close()


def test_stranger_without_the_secret_is_refused_and_the_server_goes_on(
    place: Place, transport: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeromq, "HANDSHAKE_TIMEOUT_S", 0.2)
    description = FakeWorker(SAMPLER).describe(0)
    wrong = [replace(transport.address, secret=secret) for secret in (bytes(32), b"", SECRET[:-1])]
    strangers = [place.start(connect, address, description) for address in wrong]
    while not all(stranger.done() for stranger in strangers):
        assert transport.wait(0.05) == []
    assert all(isinstance(s.exception(), ServerGone | WaitTimeoutError) for s in strangers)
    channel, _ = place.join(transport, 0)
    transport.send(0, order(0))
    assert channel.receive(PATIENCE_S) == order(0)


def test_connecting_to_nobody_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "HANDSHAKE_TIMEOUT_S", 0.2)
    for kind in KINDS:
        gone = open_transport(kind, LAYOUT, secret=SECRET, incarnation=1, host="127.0.0.1")
        gone.close()
        future = place.start(connect, gone.address, FakeWorker(SAMPLER).describe(0))
        assert isinstance(future.exception(PATIENCE_S), ServerGone | WaitTimeoutError)


def test_shared_memory_hello_that_is_no_description_is_refused(place: Place) -> None:
    transport = place.open("shared_memory")
    for hello in (SECRET, SECRET + b"{}", SECRET + b"\xff", b"x"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(f"\0{transport.address.name}")
            stranger.send(hello)
            assert transport.wait(PATIENCE_S) == []
            assert stranger.recv(100) == b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(f"\0{transport.address.name}")
    assert transport.wait(PATIENCE_S) == []
    place.join(transport, 0)


def test_shared_memory_worker_refuses_a_server_without_the_secret(place: Place) -> None:
    name = "distsgd-test-" + os.urandom(8).hex()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        address = Address("shared_memory", name, SECRET, 1)
        worker = place.start(SharedMemoryChannel, address, FakeWorker(SAMPLER).describe(0))
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1 << 16)[:32] == SECRET
            connection.send(bytes(32) + b"{}")
            assert isinstance(worker.exception(PATIENCE_S), ServerGone)


def test_shared_memory_is_sealed(place: Place) -> None:
    transport = place.open("shared_memory")
    description = FakeWorker(SAMPLER).describe(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.connect(f"\0{transport.address.name}")
        worker.send(SECRET + description.pack())
        until(transport, Joined)
        _, (weights_fd, slots_fd), _, _ = socket.recv_fds(worker, 1 << 16, 2)
    try:
        for fd, size in ((weights_fd, LAYOUT.weights_bytes), (slots_fd, LAYOUT.slots_bytes)):
            assert os.fstat(fd).st_size == size
            for other in (0, size - 1, size + 4096):
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, other)
        with pytest.raises(PermissionError):
            mmap.mmap(weights_fd, LAYOUT.weights_bytes)
        with pytest.raises(PermissionError):
            os.pwrite(weights_fd, b"x", 0)
        read = mmap.mmap(weights_fd, LAYOUT.weights_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
        transport.weights[:] = 7
        assert set(np.frombuffer(read, LAYOUT.dtype, LAYOUT.num_parameters)) == {7}
        assert fcntl.fcntl(weights_fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    finally:
        os.close(weights_fd)
        os.close(slots_fd)


def test_zmq_worker_with_another_key_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeromq, "HANDSHAKE_TIMEOUT_S", 0.2)
    transport = place.open("zmq")
    public, _ = zmq.curve_keypair()
    stranger = place.start(
        connect, replace(transport.address, public_key=public), FakeWorker(SAMPLER).describe(0)
    )
    while not stranger.done():
        assert transport.wait(0.05) == []
    assert isinstance(stranger.exception(), ServerGone | WaitTimeoutError)
    place.join(transport, 0)


def test_zmq_partials_of_the_wrong_size_are_refused(place: Place) -> None:
    transport = place.open("zmq")
    channel, _ = place.join(transport, 0)
    channel.slots = np.zeros((1, LAYOUT.num_parameters - 1), LAYOUT.dtype)
    channel.reply(report_on(order(0)))
    (lost,) = until(transport, Lost)
    assert isinstance(lost, Lost)
    assert "bytes of partials" in lost.reason


def test_two_workers_serve_at_once(place: Place, transport: Served) -> None:
    barrier = threading.Barrier(2, timeout=PATIENCE_S)

    def meet(_order: ComputeRequest) -> None:
        barrier.wait()

    for worker in (0, 1):
        place.serve(transport, worker, FakeWorker(SAMPLER, meet))
    for worker in (0, 1):
        transport.send(worker, order(0))
    events: list[Event] = []
    while len(events) < 2:
        events += until(transport, Replied)
    assert {event.worker for event in events} == {0, 1}
    assert transport.partials(0)[0].tobytes() == transport.partials(1)[0].tobytes()


def test_description_is_what_the_worker_sent(place: Place, transport: Served) -> None:
    strange = WorkerInfo(0, "version ü", 2**40, "", '"')
    _, events = place.join(transport, 0, strange)
    assert events == [Joined(0, strange)]
