"""The transport on one node, the server's side.

Weights and partials in shared memory, a few bytes over a Unix socket to say go and done.

The server creates anonymous memory (memfd: nothing to leak when anyone is killed) and passes it
over an abstract socket of random name, to processes of the same user that know the run's secret.
Workers compute from the weights in place and write partials into slots of their own; end-of-file on
the socket is a death notice within a millisecond. Weights are sealed against every writer but the
server's own mapping, slots against a change of size: a peer that truncates a mapped file would kill
its reader.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import mmap
import os
import selectors
import signal
import socket
import time
from dataclasses import asdict, dataclass

from distsgd.base.arrays import Array
from distsgd.parallel.messages import ComputeReply, ComputeRequest, WorkerInfo
from distsgd.parallel.transport.interface import (
    HANDSHAKE_TIMEOUT_S,
    UNASKED,
    Address,
    BufferLayout,
    Event,
    Joined,
    Lost,
    Replied,
)
from distsgd.parallel.transport.shared_memory_channel import (
    MESSAGE_BYTES,
    SECRET_BYTES,
    credentials,
    proof,
    seal_against_writers,
    sealed_memory,
)

_MOST_CALLERS = 64  # That have connected and said nothing yet.


def is_available() -> bool:
    """Does this platform have anonymous shared memory and abstract sockets?"""
    return hasattr(os, "memfd_create") and hasattr(socket, "SO_PEERCRED")


@dataclass(slots=True)
class _Peer:
    """A worker, as the server sees it."""

    worker: int
    connection: socket.socket
    slots: Array
    num_open: int = 0  # Requests sent and not yet answered.


@dataclass(slots=True)
class _Caller:
    """A process that has connected and not yet said who it is."""

    connection: socket.socket
    deadline_s: float


class SharedMemoryTransport:
    """The server's side; see `interface.Transport`.

    Nobody but the owner's processes on this node can connect.
    """

    can_spin = True

    def __init__(self, layout: BufferLayout, *, secret: bytes, incarnation: int) -> None:
        self._layout = layout
        self._secret = secret
        self._weights_fd = sealed_memory("weights", layout.weights_bytes)
        self._weights_memory = mmap.mmap(self._weights_fd, layout.weights_bytes)
        seal_against_writers(self._weights_fd)
        self.weights = layout.weights(self._weights_memory)
        self._peers: dict[int, _Peer] = {}
        self._replied: dict[int, Array] = {}  # Slots outlive a worker that replies and then dies.
        self._lost: list[Event] = []
        self._callers: list[_Caller] = []
        name = f"distsgd-{os.urandom(12).hex()}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"\0{name}")
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self.address = Address("shared_memory", name, secret, incarnation, layout=layout)

    def send(self, worker: int, request: ComputeRequest) -> None:
        """Send `request`; a worker that is gone shows as `Lost` in the next `wait`."""
        if len(self._replied) > len(self._peers):  # A new step: what the lost left is used.
            self._replied = {at: self._replied[at] for at in self._peers if at in self._replied}
        peer = self._peers.get(worker)
        if peer is None:
            self._lost.append(Lost(worker, "it is not connected"))
            return
        try:
            peer.connection.send(request.pack())
            peer.num_open += 1
        except OSError as error:
            self._drop(peer, str(error))

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:
        """Replies, new workers and lost ones; blocks until there is one, or `timeout_s` seconds.

        Returns early, with nothing, when a process connects that is not a worker yet.
        """
        events, self._lost = self._lost, []
        for key, _ in self._select(0.0 if events else timeout_s, spin_s):
            if isinstance(key.data, _Peer):
                self._read(key.data, events)
            elif key.data is None:
                self._accept(events)
            else:
                self._hear(key.data, events)
        if self._callers:
            self._hang_up_on_the_silent()
        events += self._lost
        self._lost = []
        return events

    def _select(self, timeout_s: float, spin_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        until = time.perf_counter() + min(timeout_s, spin_s)
        while time.perf_counter() < until:
            ready = self._selector.select(0)
            if ready:
                return ready
            os.sched_yield()
        return self._selector.select(timeout_s)

    def partials(self, worker: int) -> Array:
        """The worker's slots, shape ``[S, P]``."""
        return self._replied[worker]

    def pid(self, worker: int) -> int | None:
        """The process at the other end, as the kernel says; None where it is hidden or gone."""
        peer = self._peers.get(worker)
        return None if peer is None else credentials(peer.connection)[0] or None

    def kill(self, worker: int) -> None:
        """Kill the process at the other end, which holds the run's secret and so is the run's."""
        peer = self._peers.get(worker)
        if peer is None:
            return
        pid = credentials(peer.connection)[0]
        if pid > 0 and pid != os.getpid():  # 0: in another namespace, which the kernel hides.
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)
        self._drop(peer, "it did not answer and was killed")

    def close(self) -> None:
        """Hang up on all; the memory is gone with its last mapping."""
        for peer in list(self._peers.values()):
            self._drop(peer, "the server closes")
        for caller in list(self._callers):
            self._hang_up(caller)
        self._lost = []
        self._selector.close()
        self._listener.close()
        os.close(self._weights_fd)

    def _accept(self, events: list[Event]) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # It left before it was let in.
        connection.setblocking(False)
        caller = _Caller(connection, time.monotonic() + HANDSHAKE_TIMEOUT_S)
        if len(self._callers) >= _MOST_CALLERS:
            self._hang_up(self._callers[0])
        self._callers.append(caller)
        self._selector.register(connection, selectors.EVENT_READ, caller)
        self._hear(caller, events)

    def _hear(self, caller: _Caller, events: list[Event]) -> None:
        """Let a caller in that has said the right words; wait for one that is still silent."""
        connection = caller.connection
        if caller not in self._callers:
            return
        try:
            peer, description = self._greet(connection)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            # Not one of ours: it learns nothing, and the run continues.
            self._hang_up(caller)
            return
        self._callers.remove(caller)
        self._selector.unregister(connection)
        if peer.worker in self._peers:
            self._drop(self._peers[peer.worker], "a new process took its place")
        # The loss of a predecessor comes before the joining of its successor, however it was lost.
        events += self._lost
        self._lost = []
        self._peers[peer.worker] = peer
        self._selector.register(connection, selectors.EVENT_READ, peer)
        events.append(Joined(peer.worker, description))

    def _hang_up_on_the_silent(self) -> None:
        now_s = time.monotonic()
        for caller in [it for it in self._callers if it.deadline_s <= now_s]:
            self._hang_up(caller)

    def _hang_up(self, caller: _Caller) -> None:
        self._callers.remove(caller)
        self._selector.unregister(caller.connection)
        caller.connection.close()

    def _greet(self, connection: socket.socket) -> tuple[_Peer, WorkerInfo]:
        """Check who called, and hand over the memory: slots that no predecessor can write."""
        if credentials(connection)[1] != os.getuid():
            raise ValueError("another user")
        hello = connection.recv(MESSAGE_BYTES)
        if not hmac.compare_digest(hello[:SECRET_BYTES], self._secret):
            raise ValueError("without the secret")
        description = WorkerInfo.unpack(hello[SECRET_BYTES:])
        layout = self._layout
        slots_fd = sealed_memory("partials", layout.slots_bytes)
        try:
            memory = mmap.mmap(slots_fd, layout.slots_bytes)
            welcome = proof(self._secret) + json.dumps(asdict(layout)).encode()
            socket.send_fds(connection, [welcome], [self._weights_fd, slots_fd])
        finally:
            os.close(slots_fd)
        return _Peer(description.worker, connection, layout.slots(memory)), description

    def _read(self, peer: _Peer, events: list[Event]) -> None:
        if self._peers.get(peer.worker) is not peer:
            return
        try:
            data = peer.connection.recv(MESSAGE_BYTES)
            if data:
                reply = ComputeReply.unpack(data)
                if peer.num_open < 1:
                    raise ValueError(UNASKED)  # noqa: TRY301 -- one way out for all that is no reply.
                events.append(Replied(peer.worker, reply))
                self._replied[peer.worker] = peer.slots
                peer.num_open -= 1
                return
            reason = "its process ended"
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            reason = str(error)
        self._drop(peer, reason)

    def _drop(self, peer: _Peer, reason: str) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        del self._peers[peer.worker]
        self._lost.append(Lost(peer.worker, reason))
