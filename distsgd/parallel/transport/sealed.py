"""What both sides of the transport on one node share: sealed memory, a Unix socket's other end.

No waiting here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct

MESSAGE_BYTES = 1 << 16
SECRET_BYTES = 32
# Of another worker's slots, by its number: here they are (their memory comes beside it), or they
# are gone. In place of a request's incarnation and kind stand 0, and one of these.
INTRODUCTION = struct.Struct("<IBI")
INTRODUCES, DISMISSES = 253, 254
_SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE (Linux 5.1), absent from fcntl before Python 3.13.


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
