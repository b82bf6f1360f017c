"""Workers and servers that come and go, by each transport."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
import zmq

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.messages import ComputeRequest
from distsgd.parallel.transport import connect, open_transport, shared_memory, zeromq
from distsgd.parallel.transport.interface import (
    Event,
    Joined,
    Lost,
    Replied,
    ServerGone,
)
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.transport.zeromq import ZeroMQTransport
from tests.contract.transports import (
    KINDS,
    LAYOUT,
    PATIENCE_S,
    SAMPLER,
    SECRET,
    Place,
    Served,
    answer,
    reply_to,
    request_for,
    until,
)
from tests.fakes import FakeWorker, serve_fake

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="needs memfd (Linux)")


def test_worker_that_leaves_is_lost_and_the_others_stay(place: Place, transport: Served) -> None:
    leaving, _ = place.join(transport, 0)
    staying, _ = place.join(transport, 1)
    transport.send(0, request_for(0))
    leaving.close()
    (lost,) = until(transport, Lost)
    assert isinstance(lost, Lost)
    assert lost.worker == 0
    assert lost.reason
    transport.send(1, request_for(0))
    assert staying.receive(PATIENCE_S) == request_for(0)
    staying.reply(reply_to(request_for(0)))
    assert until(transport, Replied) == [Replied(1, reply_to(request_for(0)))]


def test_request_to_a_worker_that_is_not_connected_shows_as_lost(
    place: Place, transport: Served
) -> None:
    transport.send(7, request_for(0))
    (lost,) = transport.wait(PATIENCE_S)
    assert isinstance(lost, Lost)
    assert lost.worker == 7
    channel, _ = place.join(transport, 0)
    channel.close()
    until(transport, Lost)
    transport.send(0, request_for(0))
    assert [event.worker for event in until(transport, Lost)] == [0]


def test_new_process_takes_the_place_of_an_old_one(place: Place, transport: Served) -> None:
    old, _ = place.join(transport, 0)
    new, events = place.join(transport, 0)
    assert [type(event) for event in events] == [Lost, Joined]
    with pytest.raises(ServerGone):
        old.receive(PATIENCE_S)
    transport.send(0, request_for(0))
    assert new.receive(PATIENCE_S) == request_for(0)
    new.slots[:] = 5
    old.slots[:] = 6
    new.reply(reply_to(request_for(0)))
    assert until(transport, Replied) == [Replied(0, reply_to(request_for(0)))]
    assert set(transport.partials(0)[0]) == {5}


def test_closing_ends_every_worker(place: Place, transport: Served) -> None:
    asleep, _ = place.join(transport, 0)
    busy, _ = place.join(transport, 1)
    service = place.serve(transport, 2, FakeWorker(SAMPLER))
    for worker in (1, 2):
        transport.send(worker, request_for(0))
    until(transport, Replied)
    assert busy.receive(PATIENCE_S) == request_for(0)
    place.close(transport)
    assert service.result(PATIENCE_S) == 1
    for channel in (asleep, busy):
        with pytest.raises(ServerGone):
            channel.receive(PATIENCE_S)


def test_reply_to_a_server_that_is_gone_ends_the_service(place: Place, transport: Served) -> None:
    channel, _ = place.join(transport, 0)
    place.close(transport)

    def reply_often() -> None:
        for _ in range(10_000):
            channel.reply(reply_to(request_for(0)))

    with pytest.raises(ServerGone):
        place.start(channel.receive, PATIENCE_S).result(PATIENCE_S)
    with pytest.raises(ServerGone):
        place.start(reply_often).result(PATIENCE_S)


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
        answer(transport, request_for(0))
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
        answer(transport, request_for(0))
    finally:
        for process in (old, new):
            process.kill()
            process.join(PATIENCE_S)
            process.close()


def test_connecting_without_a_server_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "HANDSHAKE_TIMEOUT_S", 0.2)
    for kind in KINDS:
        gone = open_transport(kind, LAYOUT, secret=SECRET, incarnation=1, host="127.0.0.1")
        gone.close()
        future = place.start(connect, gone.address, FakeWorker(SAMPLER).describe(0))
        assert isinstance(future.exception(PATIENCE_S), ServerGone | WaitTimeoutError)


def test_two_workers_serve_at_once(place: Place, transport: Served) -> None:
    barrier = threading.Barrier(2, timeout=PATIENCE_S)

    def meet(_request: ComputeRequest) -> None:
        barrier.wait()

    for worker in (0, 1):
        place.serve(transport, worker, FakeWorker(SAMPLER, meet))
    for worker in (0, 1):
        transport.send(worker, request_for(0))
    events: list[Event] = []
    while len(events) < 2:
        events += until(transport, Replied)
    assert {event.worker for event in events} == {0, 1}
    assert transport.partials(0)[0].tobytes() == transport.partials(1)[0].tobytes()
