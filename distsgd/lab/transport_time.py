"""How long the transport alone takes, between processes that compute nothing. Starts them."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import time
from statistics import median
from typing import Any

import numpy as np

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.errors import WaitTimeoutError
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, Sums, WorkerInfo
from distsgd.parallel.service import serve
from distsgd.parallel.transport import open_transport
from distsgd.parallel.transport.interface import Address, BufferLayout, Joined, Replied

NUM_PARAMETERS = 100_000
NUM_STEPS = 400
TIMEOUT_S = 60.0


def transport_us(*, num_workers: int, num_parameters: int = NUM_PARAMETERS) -> float:
    """Microseconds of a step without computing: weights out, gradients back, summed. Blocks.

    No Ray, no sampler, no update rule, no record: what the transport itself takes.

    Raises:
        WaitTimeoutError: The workers do not come or do not answer.
    """
    layout = BufferLayout(num_parameters, 2, "float32")
    transport = open_transport(
        "auto", layout, secret=secrets.token_bytes(32), incarnation=0, host="127.0.0.1"
    )
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_serve_nothing, args=(transport.address, number), daemon=True)
        for number in range(num_workers)
    ]
    try:
        for worker in workers:
            worker.start()
        _gather(transport, Joined, num_workers)
        times = [_empty_step(transport, step, num_workers) for step in range(NUM_STEPS)]
    finally:
        transport.close()
        for worker in workers:
            if worker.pid is not None:
                worker.join(TIMEOUT_S)
                worker.kill()
    return round(median(times[NUM_STEPS // 4 :]) * 1e6, 1)


def _empty_step(transport: Any, step: int, num_workers: int) -> float:
    started = time.perf_counter()
    for worker in range(num_workers):
        transport.send(
            worker, ComputeRequest(0, RequestKind.GRADIENT, step, worker, worker + 1, 0, 0)
        )
    _gather(transport, Replied, num_workers)
    total = transport.partials(0)[0]
    for worker in range(1, num_workers):
        np.add(total, transport.partials(worker)[0], out=total)
    np.add(transport.weights, total, out=transport.weights)
    return time.perf_counter() - started


def _gather(transport: Any, kind: type, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while count:
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"{count} workers of the empty step", TIMEOUT_S)
        count -= sum(isinstance(event, kind) for event in transport.wait(1.0))


class _EmptyWorker:
    """A worker whose partials cost nothing but being written."""

    def describe(self, worker: int) -> WorkerInfo:
        return WorkerInfo(worker, __version__, os.getpid(), *[""] * 4)

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        self._weights_P, self._slots_SP = weights_P, slots_SP

    def compute(self, request: ComputeRequest) -> ComputeReply:
        np.copyto(self._slots_SP[0], self._weights_P)
        return ComputeReply(*request[:5], 0.0, 0.0, (Sums(1, 0.0, 0, 0.0, 0.0),))

    def prefetch(self, request: ComputeRequest) -> None:
        """Nothing to read."""


def _serve_nothing(address: Address, number: int) -> None:
    serve(_EmptyWorker(), address, number)
