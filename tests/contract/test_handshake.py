"""Who is let in, what is sealed, and what is refused of those who are in."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import zmq

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.messages import ComputeReply
from distsgd.parallel.transport import connect, shared_memory, zeromq
from distsgd.parallel.transport.interface import (
    Address,
    Joined,
    Lost,
    ServerGone,
)
from distsgd.parallel.transport.shared_memory_channel import SharedMemoryChannel
from tests.contract.transports import (
    LAYOUT,
    PATIENCE_S,
    SAMPLER,
    SECRET,
    Place,
    Served,
    reply_to,
    request_for,
    until,
)
from tests.fakes import FakeWorker

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="needs memfd (Linux)")


def test_worker_that_sends_noise_is_lost(place: Place, transport: Served) -> None:
    class Noise(ComputeReply):
        def pack(self) -> bytes:
            return b"noise"

    channel, _ = place.join(transport, 0)
    channel.reply(Noise(*reply_to(request_for(0))))
    (lost,) = until(transport, Lost)
    assert isinstance(lost, Lost)
    assert "no reply" in lost.reason
    with pytest.raises(ServerGone):
        channel.receive(PATIENCE_S)


def test_stranger_without_the_secret_is_refused_and_the_server_stays(
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
    transport.send(0, request_for(0))
    assert channel.receive(PATIENCE_S) == request_for(0)


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
    channel.reply(reply_to(request_for(0)))
    (lost,) = until(transport, Lost)
    assert isinstance(lost, Lost)
    assert "bytes of partials" in lost.reason
