"""The transport over TCP, for workers on other nodes and for platforms without memfd.

ZeroMQ, encrypted with CURVE.

The server's public key and the run's secret are handed out by Ray; a process without the key cannot
speak to the socket, and one without the secret is not answered. Weights go out with every request,
once a worker; partials come back with the reply.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from distsgd.base.arrays import Array
from distsgd.errors import WaitTimeoutError
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, WorkerInfo
from distsgd.parallel.transport.interface import (
    HANDSHAKE_TIMEOUT_S,
    UNASKED,
    Address,
    BufferLayout,
    Event,
    Joined,
    Lost,
    Replied,
    ServerGone,
)

SEND_TIMEOUT_S = 30.0  # A peer that takes nothing for so long is gone.
_CLOSED = b""
_LONGEST_WORDS = 1 << 16  # Bytes of a hello or of a reply without its partials.
_HEARTBEAT_MS = 2_000  # A peer whose node died without a word is noticed after three of these.


class ZeroMQTransport:
    """The server's side; see `interface.Transport`.

    Listens on `host` alone, on a port the system chooses.
    """

    can_spin = False  # Its own threads sleep.

    def __init__(self, layout: BufferLayout, *, secret: bytes, incarnation: int, host: str) -> None:
        self._layout = layout
        self._secret = secret
        self.weights = np.zeros(layout.num_parameters, layout.dtype)
        self._context = zmq.Context()
        public, private = zmq.curve_keypair()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_secretkey = private
        self._socket.router_mandatory = True
        self._socket.sndtimeo = round(SEND_TIMEOUT_S * 1000)
        self._socket.linger = 0
        self._socket.maxmsgsize = max(layout.slots_bytes, _LONGEST_WORDS)  # Of one frame.
        self._socket.heartbeat_ivl = _HEARTBEAT_MS
        self._socket.heartbeat_timeout = 3 * _HEARTBEAT_MS
        port = self._socket.bind_to_random_port(f"tcp://{host}")
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._workers: dict[bytes, int] = {}
        self._identities: dict[int, bytes] = {}
        self._connections: dict[int, bytes] = {}  # File descriptor to identity.
        self._partials: dict[int, Array] = {}
        self._num_open: dict[bytes, int] = {}  # Requests sent and not yet answered.
        self._lost: list[Event] = []
        name = f"tcp://{host}:{port}"
        self.address = Address("zmq", name, secret, incarnation, public, layout)

    def send(self, worker: int, request: ComputeRequest) -> None:
        """Send `request` and the weights."""
        identity = self._identities.get(worker)
        if identity is None:
            self._lost.append(Lost(worker, "it is not connected"))
            return
        try:
            # A copy: the server may begin the next step while the last bytes of an answered
            # request are on their way.
            self._socket.send_multipart([identity, request.pack(), self.weights.tobytes()])
            self._num_open[identity] += 1
        except zmq.ZMQError as error:
            self._forget(identity, str(error))

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:  # noqa: ARG002 -- its own threads sleep.
        """Replies, new workers and lost ones; blocks until there is one, or `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            events, self._lost = self._lost, []
            remaining_ms = max(0, round((deadline - time.monotonic()) * 1000))
            ready = dict(self._poller.poll(0 if events else remaining_ms))
            # Disconnections first: a worker that came since may have got the descriptor of one that
            # went.
            if self._monitor in ready:
                self._notice_disconnects()
            if self._socket in ready:
                self._read(events)
            events += self._lost
            self._lost = []
            if events or time.monotonic() >= deadline:
                return events

    def partials(self, worker: int) -> Array:
        """The gradient sums that came with the worker's last reply; shape ``[nodes, P]``."""
        return self._partials[worker]

    def pid(self, worker: int) -> int | None:  # noqa: ARG002 -- whichever worker it is.
        """None: a process at the other end of a network is not known."""
        return None

    def kill(self, worker: int) -> None:
        """Hang up: its process may be on another node, where its own timeout ends it."""
        identity = self._identities.get(worker)
        if identity is not None:
            self._forget(identity, "it did not answer")

    def close(self) -> None:
        """Tell all workers that there is no more to do."""
        for identity in list(self._workers):
            try:
                self._socket.send_multipart([identity, _CLOSED], zmq.NOBLOCK)
            except zmq.ZMQError:
                continue  # It left first.
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=1000)
        self._context.term()

    def _read(self, events: list[Event]) -> None:
        frames = self._socket.recv_multipart(copy=False)
        identity, head = frames[0].bytes, frames[1].bytes if len(frames) > 1 else b""
        if identity not in self._workers:
            self._greet(identity, head, frames[-1], events)
            return
        worker = self._workers[identity]
        if head == _CLOSED:
            self._forget(identity, "it left")
            return
        try:
            reply = ComputeReply.unpack(head)
            is_gradient = reply.kind is RequestKind.GRADIENT
            rows = self._rows(frames[2:], len(reply.nodes) if is_gradient else 0)
            if self._num_open[identity] < 1:
                raise ValueError(UNASKED)  # noqa: TRY301 -- one way out for all that is no reply.
        except ValueError as error:
            self._forget(identity, str(error))
            return
        self._num_open[identity] -= 1
        self._partials[worker] = rows
        events.append(Replied(worker, reply))

    def _greet(self, identity: bytes, hello: bytes, frame: zmq.Frame, events: list[Event]) -> None:
        size = len(self._secret)
        if not hmac.compare_digest(hello[:size], self._secret):
            return
        try:
            description = WorkerInfo.unpack(hello[size:])
        except ValueError:
            return
        welcome = json.dumps(asdict(self._layout)).encode()
        try:
            self._socket.send_multipart([identity, self._secret, welcome], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # It left before it was let in.
        worker = description.worker
        if worker in self._identities:
            self._forget(self._identities[worker], "a new process took its place")
        self._workers[identity] = worker
        self._identities[worker] = identity
        self._num_open[identity] = 0
        self._connections[frame.get(zmq.SRCFD)] = identity
        events += self._lost
        self._lost = []
        events.append(Joined(worker, description))

    def _rows(self, frames: Sequence[zmq.Frame], num_nodes: int) -> Array:
        """The gradient sums in `frames`, checked for their size. Raises ValueError."""
        buffer = frames[0].buffer if frames else b""
        wanted = num_nodes * self._layout.weights_bytes
        if len(frames) > 1 or len(buffer) != wanted:
            raise ValueError(f"{len(buffer)} bytes of partials; {num_nodes} nodes have {wanted}")
        rows: Array = np.frombuffer(buffer, self._layout.dtype)
        return rows.reshape(num_nodes, self._layout.num_parameters)

    def _notice_disconnects(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            identity = self._connections.pop(int(event["value"]), None)
            if identity in self._workers:
                self._forget(identity, "its connection ended")

    def _forget(self, identity: bytes, reason: str) -> None:
        worker = self._workers.pop(identity)
        del self._num_open[identity]
        del self._identities[worker]
        self._partials.pop(worker, None)
        with contextlib.suppress(zmq.ZMQError):  # A living one need not wait for requests.
            self._socket.send_multipart([identity, _CLOSED], zmq.NOBLOCK)
        self._lost.append(Lost(worker, reason))


class ZeroMQChannel:
    """The worker's side; see `interface.Channel`."""

    def __init__(self, address: Address, description: WorkerInfo) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        public, private = zmq.curve_keypair()
        self._socket.curve_publickey, self._socket.curve_secretkey = public, private
        self._socket.curve_serverkey = address.public_key
        self._socket.linger = 0
        self._socket.heartbeat_ivl = _HEARTBEAT_MS
        self._socket.heartbeat_timeout = 3 * _HEARTBEAT_MS
        self._socket.sndtimeo = round(SEND_TIMEOUT_S * 1000)
        self._socket.reconnect_ivl = -1  # A server that went away comes back under another address.
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._is_welcome = False  # Is there a server that a good-bye would reach?
        self._socket.connect(address.name)
        self._socket.send(address.secret + description.pack())
        try:
            layout = self._welcome(address)
        except BaseException:
            self.close()
            raise
        self._is_welcome = True
        self._weights = np.zeros(layout.num_parameters, layout.dtype)
        self.weights = self._weights.view()
        self.weights.flags.writeable = False
        self.slots = np.zeros((layout.num_slots, layout.num_parameters), layout.dtype)

    def receive(self, timeout_s: float, *, spin_s: float = 0.0) -> ComputeRequest | None:  # noqa: ARG002 -- as above.
        """The next request, with its weights in place; None after `timeout_s` seconds.

        Raises ServerGone.
        """
        frames = self._receive_frames(timeout_s)
        if frames is None:
            return None
        if frames[0].bytes == _CLOSED:
            self._is_welcome = False
            raise ServerGone("it closed the connection")
        self._weights[:] = np.frombuffer(frames[1].buffer, self._weights.dtype)
        return ComputeRequest.unpack(frames[0].bytes)

    def reply(self, reply: ComputeReply) -> None:
        """Send `reply` and the slots it speaks of."""
        rows = self.slots[: len(reply.nodes) if reply.kind is RequestKind.GRADIENT else 0]
        try:
            # Without a server a send would wait for one for ever.
            self._socket.send_multipart([reply.pack(), rows.tobytes()], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise ServerGone(str(error)) from None

    def close(self) -> None:
        """Say good-bye, unless the server left first."""
        if not self._socket.closed:
            if self._is_welcome:
                with contextlib.suppress(zmq.ZMQError):  # It leaves just now.
                    self._socket.send(_CLOSED, zmq.NOBLOCK)
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=1000 if self._is_welcome else 0)
            self._context.term()

    def _welcome(self, address: Address) -> BufferLayout:
        frames = self._receive_frames(HANDSHAKE_TIMEOUT_S)
        if frames is None:
            raise WaitTimeoutError(f"the server's welcome at {address.name}", HANDSHAKE_TIMEOUT_S)
        if not hmac.compare_digest(frames[0].bytes, address.secret):
            raise ServerGone("it does not know the run's secret")
        layout: dict[str, Any] = json.loads(frames[1].bytes)
        return BufferLayout(**layout)

    def _receive_frames(self, timeout_s: float) -> list[zmq.Frame] | None:
        ready = dict(self._poller.poll(round(timeout_s * 1000)))
        if self._socket in ready:
            return list(self._socket.recv_multipart(copy=False))
        if self._monitor in ready:
            recv_monitor_message(self._monitor)
            self._is_welcome = False
            raise ServerGone("its connection ended")
        return None
