"""Exchanges: the direct way of weights and partials between the server and its workers.

See `contract`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distsgd.errors import ClusterError
from distsgd.parallel.exchange import shared_memory
from distsgd.parallel.exchange.contract import Address, Channel, Layout
from distsgd.parallel.exchange.shared_memory import SharedMemoryExchange
from distsgd.parallel.exchange.shared_memory_channel import SharedMemoryChannel
from distsgd.parallel.messages import Description

if TYPE_CHECKING:  # Loaded when it is used.
    from distsgd.parallel.exchange.zeromq import ZeroMQExchange

ExchangeKind = Literal["auto", "shared_memory", "zmq"]


def open_exchange(
    kind: ExchangeKind, layout: Layout, *, secret: bytes, incarnation: int, host: str
) -> SharedMemoryExchange | ZeroMQExchange:
    """The server's side of the exchange named `kind`.

    "auto" is shared memory where the platform has it.

    Raises:
        ClusterError: Shared memory was asked for by name and is not there.
    """
    if kind != "zmq" and shared_memory.is_available():
        return SharedMemoryExchange(layout, secret=secret, incarnation=incarnation)
    if kind == "shared_memory":
        raise ClusterError(
            'parallel.exchange is "shared_memory", which needs Linux (memfd); set it to "auto" '
            'or "zmq"'
        )
    from distsgd.parallel.exchange.zeromq import ZeroMQExchange  # noqa: PLC0415 -- when used.

    return ZeroMQExchange(layout, secret=secret, incarnation=incarnation, host=host)


def connect(address: Address, description: Description) -> Channel:
    """The worker's side: connect to the server at `address`; blocks for a handshake.

    Raises:
        ServerGone: Nobody is there, or it refused.
        ExchangeTimeoutError: It did not answer in time.
    """
    if address.kind == "shared_memory":
        return SharedMemoryChannel(address, description)
    from distsgd.parallel.exchange.zeromq import ZeroMQChannel  # noqa: PLC0415 -- when used.

    return ZeroMQChannel(address, description)
