"""A worker's life inside its process: connect, answer requests until the server is gone."""

from __future__ import annotations

import numpy as np

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.transport import connect
from distsgd.parallel.transport.interface import (
    SPIN_S,
    Address,
    Channel,
    Handler,
    ServerGone,
)

QUIET_S = 60.0  # An idle worker wakes up this often; the end of the connection wakes it at once.


def serve(handler: Handler, address: Address, number: int) -> int:
    """Serve the server at `address` as worker `number`; blocks until the server is gone.

    Returns:
        How many compute requests were answered.
    """
    try:
        channel = connect(address, handler.describe(number))
    except (ServerGone, WaitTimeoutError):
        return 0  # The supervisor asks again, and knows how long that makes sense.
    try:
        handler.attach(channel.weights, channel.slots)
        # The server notices a loss that is not finite, and names the step.
        with np.errstate(all="ignore"):
            return _answer(handler, channel)
    finally:
        channel.close()


def _answer(handler: Handler, channel: Channel) -> int:
    num_requests, spin_s = 0, 0.0
    try:
        while True:
            request = channel.receive(QUIET_S, spin_s=spin_s)
            if request is None:
                continue
            channel.reply(handler.compute(request))
            num_requests += 1
            handler.prefetch(request)
            spin_s = SPIN_S if request.spin else 0.0
    except ServerGone:
        return num_requests
