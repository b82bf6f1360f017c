"""Peers that do not keep the protocol: the server refuses or drops them, and serves the others."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import pytest
import zmq

from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, Sums, WorkerInfo
from distsgd.parallel.transport import open_transport, shared_memory
from distsgd.parallel.transport.interface import (
    HANDSHAKE_TIMEOUT_S,
    UNASKED,
    BufferLayout,
    Event,
    Joined,
    Lost,
    Replied,
)
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.transport.zeromq import ZeroMQTransport
from distsgd.parallel.tree import most_nodes
from tests.fakes import FakeWorker, small_blocks

SAMPLER = small_blocks(100, 64, lanes=4, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(21, most_nodes(SAMPLER.most_leaves), "float32")
SECRET = bytes(range(32))
PATIENCE_S = 20.0
REQUEST = ComputeRequest(1, RequestKind.GRADIENT, 0, 0, 1, 0, 0)
REPLY = ComputeReply(*REQUEST[:5], 1.0, 2.0, (Sums(1, 0.5, 0, 0.0, 0.0),))
DESCRIPTION = FakeWorker(SAMPLER).describe(0)
HEAD_BYTES = len(REPLY.pack()) - struct.calcsize("<qdqdd")

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="needs memfd (Linux)")
Raw = Callable[[bytes], None]


class Peer:
    """A connected worker that sends what it likes."""

    def __init__(
        self, transport: SharedMemoryTransport | ZeroMQTransport, stack: ExitStack
    ) -> None:
        self.transport = transport
        self.events: list[Event] = []
        if isinstance(transport, SharedMemoryTransport):
            self._socket = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self._socket.connect(f"\0{transport.address.name}")
        else:
            context = stack.enter_context(zmq.Context())
            self._dealer = stack.enter_context(context.socket(zmq.DEALER))
            self._dealer.linger = 0
            self._dealer.curve_publickey, self._dealer.curve_secretkey = zmq.curve_keypair()
            self._dealer.curve_serverkey = transport.address.public_key
            self._dealer.connect(transport.address.name)

    def say(self, *frames: bytes) -> None:
        """One message."""
        if isinstance(self.transport, SharedMemoryTransport):
            self._socket.send(frames[0])
        else:
            self._dealer.send_multipart(frames)

    def join(self) -> list[int]:
        """Shake hands; the descriptors that come with it, where there are any."""
        self.say(SECRET + DESCRIPTION.pack())
        self.until(Joined)
        if isinstance(self.transport, SharedMemoryTransport):
            return list(socket.recv_fds(self._socket, 1 << 16, 2)[1])
        return []

    def until(self, wanted: type[Event]) -> Event:
        """The next event of this kind; what else happened is in `events`."""
        deadline = monotonic() + PATIENCE_S
        while monotonic() < deadline:
            for event in self.transport.wait(0.1):
                self.events.append(event)
                if isinstance(event, wanted):
                    return event
        raise AssertionError(f"waited for {wanted}, saw {self.events}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["shared_memory", "zmq"])
def transport(
    request: pytest.FixtureRequest, stack: ExitStack
) -> SharedMemoryTransport | ZeroMQTransport:
    opened = open_transport(request.param, LAYOUT, secret=SECRET, incarnation=1, host="127.0.0.1")
    stack.callback(opened.close)
    return opened


@pytest.fixture
def peer(transport: SharedMemoryTransport | ZeroMQTransport, stack: ExitStack) -> Peer:
    return Peer(transport, stack)


def assert_still_serves(transport: SharedMemoryTransport | ZeroMQTransport) -> None:
    """An honest worker joins, is asked and answers."""
    with ExitStack() as stack:
        honest = Peer(transport, stack)
        for fd in honest.join():
            os.close(fd)
        transport.send(0, REQUEST)
        honest.say(REPLY.pack(), bytes(LAYOUT.weights_bytes))
        assert honest.until(Replied) == Replied(0, REPLY)
        assert transport.partials(0).shape[1] == LAYOUT.num_parameters


DESCRIBED = DESCRIPTION.pack()
HELLOS = [
    b"x",
    SECRET[:-1],
    bytes(32) + DESCRIBED,
    SECRET,
    SECRET + DESCRIBED[:-1],
    SECRET + b"[" * 60_000,
    SECRET + b"9" * 60_000,
    SECRET + b"\xff\xfe",
    SECRET + DESCRIBED.replace(b'"worker": 0', b'"worker": []'),
    SECRET + DESCRIBED.replace(b'"worker": 0', b'"worker": "0"'),
    SECRET + DESCRIBED.replace(b'"worker": 0', b'"worker": -1'),
    SECRET + DESCRIBED.replace(b'"worker": 0', b'"worker": 1e9'),
    SECRET + DESCRIBED.replace(b'"worker": 0', b'"worker": true'),
    SECRET + DESCRIBED.replace(b'"version": "', b'"version": {}, "x": "'),
]


@pytest.mark.parametrize("hello", HELLOS, ids=range(len(HELLOS)))
def test_hello_that_is_none_lets_nobody_in(peer: Peer, hello: bytes) -> None:
    peer.say(hello)
    deadline = monotonic() + 0.3
    while monotonic() < deadline:
        assert peer.transport.wait(0.05) == []
    assert_still_serves(peer.transport)


REPORTS = {
    "cut in the head": REPLY.pack()[:7],
    "cut in a node": REPLY.pack()[:-3],
    "more nodes than it has": REPLY.pack()[: HEAD_BYTES - 2]
    + struct.pack("<H", 65_535)
    + REPLY.pack()[HEAD_BYTES:],
    "no kind of work": REPLY.pack()[:4] + b"\x77" + REPLY.pack()[5:],
    "noise": bytes(range(200)),
}


@pytest.mark.parametrize("reply", REPORTS.values(), ids=REPORTS)
def test_reply_that_is_none_ends_its_worker_alone(peer: Peer, reply: bytes) -> None:
    peer.join()
    peer.transport.send(0, REQUEST)
    peer.say(reply, bytes(LAYOUT.weights_bytes))
    lost = peer.until(Lost)
    assert isinstance(lost, Lost)
    assert "reply" in lost.reason
    assert not any(isinstance(event, Replied) for event in peer.events)
    assert_still_serves(peer.transport)


def test_reply_nobody_asked_for_ends_its_worker_alone(peer: Peer) -> None:
    peer.join()
    peer.say(REPLY.pack(), bytes(LAYOUT.weights_bytes))
    assert peer.until(Lost) == Lost(0, UNASKED)
    assert_still_serves(peer.transport)


def test_flood_of_replies_counts_once_for_each_request(peer: Peer) -> None:
    peer.join()
    peer.transport.send(0, REQUEST)
    for _ in range(50):
        peer.say(REPLY.pack(), bytes(LAYOUT.weights_bytes))
    assert peer.until(Lost) == Lost(0, UNASKED)
    assert sum(isinstance(event, Replied) for event in peer.events) == 1
    assert_still_serves(peer.transport)


def test_flood_of_strangers_is_outlived(
    transport: SharedMemoryTransport | ZeroMQTransport, stack: ExitStack
) -> None:
    strangers = [Peer(transport, stack) for _ in range(40)]
    for stranger in strangers[::2]:
        stranger.say(bytes(1000))
    started = monotonic()
    for _ in range(80):
        assert transport.wait(0.0) == []
    assert monotonic() - started < HANDSHAKE_TIMEOUT_S
    assert_still_serves(transport)


def test_silent_stranger_keeps_nobody_waiting(peer: Peer) -> None:
    started = monotonic()
    assert_still_serves(peer.transport)
    assert monotonic() - started < HANDSHAKE_TIMEOUT_S - 1.0


def test_zmq_message_longer_than_any_of_ours_is_not_taken(stack: ExitStack) -> None:
    transport = open_transport("zmq", LAYOUT, secret=SECRET, incarnation=1, host="127.0.0.1")
    stack.callback(transport.close)
    peer = Peer(transport, stack)
    peer.join()
    transport.send(0, REQUEST)
    peer.say(REPLY.pack(), bytes(64 << 20))
    assert isinstance(peer.until(Lost), Lost)
    assert_still_serves(transport)


def test_shared_memory_cannot_be_resized_nor_weights_written_by_a_peer(stack: ExitStack) -> None:
    transport = open_transport(
        "shared_memory", LAYOUT, secret=SECRET, incarnation=1, host="127.0.0.1"
    )
    stack.callback(transport.close)
    weights_fd, slots_fd = Peer(transport, stack).join()
    stack.callback(os.close, weights_fd)
    stack.callback(os.close, slots_fd)
    for fd, size in ((weights_fd, LAYOUT.weights_bytes), (slots_fd, LAYOUT.slots_bytes)):
        for other in (0, size - 1, size + 1, 1 << 40):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, other)
        with pytest.raises(OSError, match=r"busy|permitted"):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(weights_fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(weights_fd, LAYOUT.weights_bytes)
    # A second opening by way of /proc meets the same seals.
    again = os.open(f"/proc/self/fd/{weights_fd}", os.O_RDWR)
    stack.callback(os.close, again)
    with pytest.raises(PermissionError):
        os.pwrite(again, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(again, 0)
    transport.weights[:] = 7
    assert set(np.frombuffer(os.pread(weights_fd, 84, 0), LAYOUT.dtype)) == {7}
    assert_still_serves(transport)


def test_description_with_wrong_types_is_none() -> None:
    changes: list[dict[str, Any]] = [
        {"worker": None},
        {"pid": 1.5},
        {"probe": 1},
        {"data_digest": []},
        {"host": None},
    ]
    for change in changes:
        strange = replace(DESCRIPTION, **change)
        with pytest.raises(ValueError, match="not a worker's description"):
            WorkerInfo.unpack(strange.pack())
