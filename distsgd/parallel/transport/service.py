"""A worker's life inside its process.

Connect, then compute what the server orders until the server is gone.
"""

from __future__ import annotations

import numpy as np

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.transport import connect
from distsgd.parallel.transport.interface import SPIN_S, Address, ServerGone, Worker

QUIET_S = 60.0  # An idle worker wakes up this often; the end of the connection wakes it at once.


def serve(worker: Worker, address: Address, number: int) -> int:
    """Serve the server at `address` as worker `number`; blocks until the server is gone.

    Returns:
        How many orders were computed.
    """
    num_orders = 0
    try:
        channel = connect(address, worker.describe(number))
    except (ServerGone, WaitTimeoutError):
        return num_orders  # Whoever supervises asks again, and knows how long that makes sense.
    try:
        worker.attach(channel.weights, channel.slots)
        with np.errstate(
            all="ignore"
        ):  # The server notices a loss that is not finite, and names the step.
            spin_s = 0.0
            while True:
                order = channel.receive(QUIET_S, spin_s=spin_s)
                if order is None:
                    continue
                channel.report(worker.compute(order))
                num_orders += 1
                worker.read_ahead(order)
                spin_s = SPIN_S if order.spin else 0.0
    except ServerGone:
        return num_orders
    finally:
        channel.close()
