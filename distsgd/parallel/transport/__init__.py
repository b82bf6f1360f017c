"""Transports: the direct way of weights and partials between the server and its workers.

What a transport is: see `interface`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distsgd.errors import ClusterError
from distsgd.parallel.messages import WorkerInfo
from distsgd.parallel.transport import shared_memory
from distsgd.parallel.transport.interface import Address, AddressKind, BufferLayout, Channel
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.transport.shared_memory_channel import SharedMemoryChannel

if TYPE_CHECKING:  # Loaded when it is used.
    from distsgd.parallel.transport.zeromq import ZeroMQTransport

TransportKind = Literal["auto", AddressKind]


def open_transport(
    kind: TransportKind, layout: BufferLayout, *, secret: bytes, incarnation: int, host: str
) -> SharedMemoryTransport | ZeroMQTransport:
    """The server's side of the transport named `kind`.

    "auto" is shared memory where the platform has it.

    Raises:
        ClusterError: Shared memory was asked for by name and is not available.
    """
    if kind != "zmq" and shared_memory.is_available():
        return SharedMemoryTransport(layout, secret=secret, incarnation=incarnation)
    if kind == "shared_memory":
        raise ClusterError(
            'parallel.transport is "shared_memory", which needs Linux (memfd); set it to "auto" '
            'or "zmq"'
        )
    from distsgd.parallel.transport.zeromq import ZeroMQTransport  # noqa: PLC0415 -- when used.

    return ZeroMQTransport(layout, secret=secret, incarnation=incarnation, host=host)


def connect(address: Address, description: WorkerInfo) -> Channel:
    """The worker's side: connect to the server at `address`; blocks for a handshake.

    Raises:
        ServerGone: No server listens there, or it refused.
        WaitTimeoutError: It did not answer in time.
    """
    if address.kind == "shared_memory":
        return SharedMemoryChannel(address, description)
    from distsgd.parallel.transport.zeromq import ZeroMQChannel  # noqa: PLC0415 -- when used.

    return ZeroMQChannel(address, description)
