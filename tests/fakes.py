"""A worker without data: what tests of the parallel parts compute with."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.synchronize import Event

import numpy as np

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.data.blocks import Block, Blocking
from distsgd.data.sampler import BatchSampler, Sampler
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, WorkerInfo
from distsgd.parallel.transport.interface import Address, Seen
from distsgd.parallel.transport.service import serve
from distsgd.parallel.tree import Sums, joins

NUM_TEST_ROWS = 50


def small_blocks(
    num_rows: int, batch_rows: int, *, lanes: int, lane_rows: int, block_rows: int
) -> BatchSampler:
    """A sampler whose mini-batches are cut into many blocks."""
    blocking = Blocking.of(batch_rows, lanes=lanes, lane_rows=lane_rows, block_rows=block_rows)
    return BatchSampler.of(num_rows, batch_rows, blocking=blocking)


def block_gradient(weights_P: Array, step: int, block: Block) -> tuple[Array, Sums]:
    """Gradient sum and sums of one block: floats that show every change of order."""
    count = block.last - block.first
    key = (step, block.number, block.first)
    target_P = uniform(0, Purpose.PROBE, *key, count=len(weights_P)).astype(weights_P.dtype)
    gradient_P = (weights_P - target_P) * weights_P.dtype.type(count)
    square = float(np.square(gradient_P, dtype=np.float64).sum())
    return gradient_P, Sums(count, square / count, 0, square / 3, square)


class FakeWorker:
    """Keeps the worker's protocol; `before` sees each order first."""

    def __init__(
        self, sampler: Sampler, before: Callable[[ComputeRequest], None] = lambda _: None
    ) -> None:
        self._sampler, self._before = sampler, before

    def describe(self, worker: int) -> WorkerInfo:
        return WorkerInfo(worker, __version__, os.getpid(), "the same bits", "the same data")

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        self._weights_P, self._slots_SP = weights_P, slots_SP

    def compute(self, order: ComputeRequest) -> ComputeReply:
        self._before(order)
        is_gradient = order.kind is RequestKind.GRADIENT
        sampler = self._sampler
        is_test = order.kind is RequestKind.EVALUATE
        partition = (
            sampler.blocking.evaluation(NUM_TEST_ROWS) if is_test else sampler.partition(order.step)
        )
        blocks, edges = partition.blocks, partition.separators[order.first : order.last + 1]
        stack: list[Sums] = []
        for block, pops in zip(blocks[order.first : order.last], joins(edges).pops, strict=True):
            gradient_P, sums = block_gradient(self._weights_P, order.step, block)
            if is_gradient:
                self._slots_SP[len(stack)] = gradient_P
            stack.append(sums)
            for _ in range(pops):
                right = stack.pop()
                if is_gradient:
                    self._slots_SP[len(stack) - 1] += self._slots_SP[len(stack)]
                stack[-1] = stack[-1].joined(right)
        return ComputeReply(*order[:5], 0.0, 0.0, tuple(stack))

    def view(self, step: int) -> Seen:
        """As many rows as the step has, each told apart by its step."""
        outputs_BO = np.full((self._sampler.num_samples(step), 1), float(step))
        return Seen(outputs_BO, -outputs_BO, 2.0 * outputs_BO)

    def read_ahead(self, order: ComputeRequest) -> None:
        pass


def serve_fake(
    address: Address, number: int, sampler: Sampler, is_time: Event | None = None
) -> None:
    """A fake worker's life, for a process of its own; it connects when `is_time`."""
    assert is_time is None or is_time.wait(60)
    serve(FakeWorker(sampler), address, number)
