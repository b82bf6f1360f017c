"""The transport on one node, the worker's side, and what both sides share: see `shared_memory`."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import mmap
import os
import socket
import struct
import time
from typing import Any

from distsgd.errors import ClusterError, WaitTimeoutError
from distsgd.parallel.messages import ComputeReply, ComputeRequest, WorkerInfo
from distsgd.parallel.transport.interface import (
    HANDSHAKE_TIMEOUT_S,
    Address,
    BufferLayout,
    ServerGone,
)

MESSAGE_BYTES = 1 << 16
SECRET_BYTES = 32
_SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE (Linux 5.1), absent from fcntl before Python 3.13.
SEND_TIMEOUT_S = 30.0  # A server that takes nothing for so long is gone.


def sealed_memory(name: str, size: int) -> int:
    """The descriptor of anonymous memory whose size no process can change."""
    fd = os.memfd_create(f"distsgd-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def seal_against_writers(fd: int) -> None:
    """From now on, no process can map the memory for writing; older mappings stay as they are."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL_FUTURE_WRITE)


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", data)
    return pid, uid, gid


def proof(secret: bytes) -> bytes:
    """What only a server that knows the secret can answer."""
    return hashlib.blake2b(b"distsgd server", key=secret, digest_size=SECRET_BYTES).digest()


class SharedMemoryChannel:
    """The worker's side; see `interface.Channel`."""

    def __init__(self, address: Address, description: WorkerInfo) -> None:
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

    def receive(self, timeout_s: float, *, spin_s: float = 0.0) -> ComputeRequest | None:
        """The next request; None after `timeout_s` seconds without one. Raises ServerGone."""
        if timeout_s != self._timeout_s:
            self._set_timeout(timeout_s)
        data = self._look(spin_s) or self._receive()
        if data is None:
            return None
        if not data:
            raise ServerGone("it closed the connection")
        return ComputeRequest.unpack(data)

    def _look(self, spin_s: float) -> bytes | None:
        """A message that comes within `spin_s` seconds, without falling asleep."""
        until = time.perf_counter() + spin_s
        while time.perf_counter() < until:
            data = self._receive(socket.MSG_DONTWAIT)
            if data is not None:
                return data
            os.sched_yield()
        return None

    def _receive(self, flags: int = 0) -> bytes | None:
        try:
            return self._connection.recv(MESSAGE_BYTES, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ServerGone(str(error)) from None

    def reply(self, reply: ComputeReply) -> None:
        """Send `reply`; what it speaks of lies in the slots already."""
        try:
            self._connection.send(reply.pack())
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

    def _shake_hands(
        self, address: Address, description: WorkerInfo
    ) -> tuple[BufferLayout, list[int]]:
        self._connection.settimeout(HANDSHAKE_TIMEOUT_S)
        started = time.monotonic()
        try:
            self._connection.connect(f"\0{address.name}")
            if credentials(self._connection)[1] != os.getuid():
                raise ClusterError(f"the socket {address.name} belongs to another user")
            self._connection.send(address.secret + description.pack())
            welcome, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, 2)
        except TimeoutError:
            raise WaitTimeoutError(
                f"the server's welcome on {address.name}", time.monotonic() - started
            ) from None
        except OSError as error:
            raise ServerGone(str(error)) from None
        expected = proof(address.secret)
        if len(fds) != 2 or not hmac.compare_digest(welcome[: len(expected)], expected):
            for fd in fds:
                os.close(fd)
            raise ServerGone("the server refused this worker, or it is not the run's server")
        layout: dict[str, Any] = json.loads(welcome[len(expected) :])
        return BufferLayout(**layout), list(fds)
