"""The exchange on one node.

Weights and partials in shared memory, a few bytes over a Unix socket to say go and done.

The server creates anonymous memory (memfd: nothing to leak when anyone is killed) and passes it
over an abstract socket of random name, to processes of the same user that know the run's secret.
Workers compute from the weights in place and write partials into slots of their own; end-of-file on
the socket is a death notice within a millisecond. Weights are sealed against every writer but the
server's own mapping, slots against a change of size: a peer that truncates a mapped file would kill
whoever reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import mmap
import os
import selectors
import signal
import socket
import struct
import time
from dataclasses import asdict, dataclass
from typing import Any

from distsgd.errors import ClusterError, ExchangeTimeoutError
from distsgd.parallel.exchange.contract import (
    HANDSHAKE_TIMEOUT_S,
    UNASKED,
    Address,
    Array,
    Event,
    Joined,
    Layout,
    Lost,
    Reported,
    ServerGone,
)
from distsgd.parallel.messages import Description, Order, Report

MESSAGE_BYTES = 1 << 16
SECRET_BYTES = 32
SEND_TIMEOUT_S = 30.0  # A server that takes nothing for so long is gone.
_MOST_CALLERS = 64  # That have connected and said nothing yet.
_SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE (Linux 5.1), absent from fcntl before Python 3.13.
_SEALS_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if hasattr(fcntl, "F_SEAL_SHRINK") else 0


def is_available() -> bool:
    """Does this platform have anonymous shared memory and abstract sockets?"""
    return hasattr(os, "memfd_create") and hasattr(socket, "SO_PEERCRED")


@dataclass(slots=True)
class _Peer:
    """A worker, as the server sees it."""

    worker: int
    connection: socket.socket
    memory: mmap.mmap
    slots: Array
    num_open: int = 0  # Orders sent and not yet answered.


@dataclass(slots=True)
class _Caller:
    """Somebody who has connected and not yet said who it is."""

    connection: socket.socket
    deadline_s: float


class SharedMemoryExchange:
    """The server's side; see `contract.Exchange`.

    Nobody but the owner's processes on this node can connect.
    """

    def __init__(self, layout: Layout, *, secret: bytes, incarnation: int) -> None:
        self._layout = layout
        self._secret = secret
        self._weights_fd = _sealed_memory("weights", layout.weights_bytes, seals=_SEALS_SIZE)
        self._weights_memory = mmap.mmap(self._weights_fd, layout.weights_bytes)
        fcntl.fcntl(self._weights_fd, fcntl.F_ADD_SEALS, _SEAL_FUTURE_WRITE)
        self.weights = layout.weights(self._weights_memory)
        self._peers: dict[int, _Peer] = {}
        self._reported: dict[int, Array] = {}  # Slots outlive a worker that reports and then dies.
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

    def send(self, worker: int, order: Order) -> None:
        """Send `order`; a worker that is gone shows as `Lost` in the next `wait`."""
        peer = self._peers.get(worker)
        if peer is None:
            self._lost.append(Lost(worker, "it is not connected"))
            return
        try:
            peer.connection.send(order.pack())
            peer.num_open += 1
        except OSError as error:
            self._drop(peer, str(error))

    def wait(self, timeout_s: float) -> list[Event]:
        """Reports, new workers and lost ones; blocks until there is one, or `timeout_s` seconds.

        Returns early, with nothing, when somebody calls who is not a worker yet, or never will be.
        """
        events, self._lost = self._lost, []
        for key, _ in self._selector.select(0 if events else timeout_s):
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

    def partials(self, worker: int) -> Array:
        """The worker's slots, shape ``[S, P]``."""
        return self._reported[worker]

    def pid(self, worker: int) -> int:
        """The process at the other end, as the kernel says."""
        return _credentials(self._peers[worker].connection)[0]

    def end(self, worker: int) -> None:
        """Kill the process at the other end, which holds the run's secret and so is the run's."""
        peer = self._peers.get(worker)
        if peer is None:
            return
        pid = _credentials(peer.connection)[0]
        if pid > 0 and pid != os.getpid():  # 0: in another namespace, which the kernel hides.
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)
        self._drop(peer, "it did not answer and was ended")

    def close(self) -> None:
        """Hang up on everybody; the memory is gone with its last mapping."""
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
            # Not one of ours: whoever it is learns nothing, and the run goes on.
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

    def _greet(self, connection: socket.socket) -> tuple[_Peer, Description]:
        """Check who called, and hand over the memory: slots of its own.

        Which no predecessor can write.
        """
        if _credentials(connection)[1] != os.getuid():
            raise ValueError("another user")
        hello = connection.recv(MESSAGE_BYTES)
        if not hmac.compare_digest(hello[:SECRET_BYTES], self._secret):
            raise ValueError("without the secret")
        description = Description.unpack(hello[SECRET_BYTES:])
        slots_fd = _sealed_memory("partials", self._layout.slots_bytes, seals=_SEALS_SIZE)
        try:
            memory = mmap.mmap(slots_fd, self._layout.slots_bytes)
            welcome = _proof(self._secret) + json.dumps(asdict(self._layout)).encode()
            socket.send_fds(connection, [welcome], [self._weights_fd, slots_fd])
        finally:
            os.close(slots_fd)
        return _Peer(
            description.worker, connection, memory, self._layout.slots(memory)
        ), description

    def _read(self, peer: _Peer, events: list[Event]) -> None:
        if self._peers.get(peer.worker) is not peer:
            return
        try:
            data = peer.connection.recv(MESSAGE_BYTES)
            if data:
                report = Report.unpack(data)
                if peer.num_open < 1:
                    raise ValueError(UNASKED)  # noqa: TRY301 -- one way out for all that is no report.
                peer.num_open -= 1
                events.append(Reported(peer.worker, report))
                self._reported[peer.worker] = peer.slots
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


class SharedMemoryChannel:
    """The worker's side; see `contract.Channel`."""

    def __init__(self, address: Address, description: Description) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            layout, fds = self._shake_hands(address, description)
        except BaseException:
            self._connection.close()
            raise
        weights_fd, slots_fd = fds
        try:
            self._weights_memory = mmap.mmap(
                weights_fd, layout.weights_bytes, mmap.MAP_SHARED, mmap.PROT_READ
            )
            self._slots_memory = mmap.mmap(slots_fd, layout.slots_bytes)
        finally:
            os.close(weights_fd)
            os.close(slots_fd)
        self.weights = layout.weights(self._weights_memory)
        self.slots = layout.slots(self._slots_memory)
        self._timeout_s = -1.0

    def receive(self, timeout_s: float) -> Order | None:
        """The next order; None after `timeout_s` seconds without one. Raises ServerGone."""
        if timeout_s != self._timeout_s:
            self._set_timeout(timeout_s)
        try:
            data = self._connection.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ServerGone(str(error)) from None
        if not data:
            raise ServerGone("it closed the connection")
        return Order.unpack(data)

    def report(self, report: Report) -> None:
        """Send `report`; its partials lie in the slots already."""
        try:
            self._connection.send(report.pack())
        except OSError as error:
            raise ServerGone(str(error)) from None

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _set_timeout(self, timeout_s: float) -> None:
        # The kernel's own timeout costs one system call a message; Python's would cost a poll
        # before each.
        seconds, microseconds = divmod(
            max(1, round(timeout_s * 1e6)), 1_000_000
        )  # 0 means for ever.
        self._connection.settimeout(None)
        self._connection.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_RCVTIMEO,
            struct.pack("ll", seconds, microseconds),
        )
        self._connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", round(SEND_TIMEOUT_S), 0)
        )
        self._timeout_s = timeout_s

    def _shake_hands(self, address: Address, description: Description) -> tuple[Layout, list[int]]:
        self._connection.settimeout(HANDSHAKE_TIMEOUT_S)
        started = time.monotonic()
        try:
            self._connection.connect(f"\0{address.name}")
            if _credentials(self._connection)[1] != os.getuid():
                raise ClusterError(f"the socket {address.name} belongs to another user")
            self._connection.send(address.secret + description.pack())
            welcome, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, 2)
        except TimeoutError:
            raise ExchangeTimeoutError(
                f"the server's welcome on {address.name}", time.monotonic() - started
            ) from None
        except OSError as error:
            raise ServerGone(str(error)) from None
        proof = _proof(address.secret)
        if len(fds) != 2 or not hmac.compare_digest(welcome[: len(proof)], proof):
            for fd in fds:
                os.close(fd)
            raise ServerGone("the server refused this worker, or it is not the run's server")
        layout: dict[str, Any] = json.loads(welcome[len(proof) :])
        return Layout(**layout), list(fds)


def _sealed_memory(name: str, size: int, *, seals: int) -> int:
    fd = os.memfd_create(f"distsgd-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", data)
    return pid, uid, gid


def _proof(secret: bytes) -> bytes:
    """What only a server that knows the secret can answer."""
    return hashlib.blake2b(b"distsgd server", key=secret, digest_size=SECRET_BYTES).digest()
