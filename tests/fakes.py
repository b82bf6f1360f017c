"""A worker without data: what tests of the parallel parts compute with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd import __version__
from distsgd.chance import Purpose, uniform
from distsgd.data.deal import Block, Deal
from distsgd.parallel.exchange.contract import Address
from distsgd.parallel.messages import Description, Kind, Order, Report
from distsgd.parallel.service import serve
from distsgd.parallel.tree import Sums, joins, separators

Array = NDArray[Any]
NUM_TEST_ROWS = 50


def block_gradient(weights_P: Array, step: int, block: Block) -> tuple[Array, Sums]:
    """Gradient sum and sums of one block: floats that show every change of the order of additions."""
    count = block.last - block.first
    key = (step, block.lane, block.first)
    target_P = uniform(0, Purpose.PROBE, *key, count=len(weights_P)).astype(weights_P.dtype)
    gradient_P = (weights_P - target_P) * weights_P.dtype.type(count)
    square = float(np.square(gradient_P, dtype=np.float64).sum())
    return gradient_P, Sums(count, square / count, 0, square / 3, square)


class FakeWorker:
    """Keeps the worker's protocol; `before` sees each order first."""

    def __init__(self, deal: Deal, before: Callable[[Order], None] = lambda _: None) -> None:
        self._deal, self._before = deal, before

    def describe(self, worker: int) -> Description:
        return Description(worker, __version__, os.getpid(), "the same bits", "the same data")

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        self._weights_P, self._slots_SP = weights_P, slots_SP

    def compute(self, order: Order) -> Report:
        self._before(order)
        is_gradient = order.kind is Kind.GRADIENT
        deal = self._deal
        blocks = deal.blocks(order.step) if is_gradient else deal.evaluation_blocks(NUM_TEST_ROWS)
        edges = separators(blocks)[order.first : order.last + 1]
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
        return Report(*order[:5], 0.0, 0.0, tuple(stack))

    def read_ahead(self, order: Order) -> None:
        pass


def serve_fake(address: Address, number: int, deal: Deal) -> None:
    """A fake worker's life, for a process of its own."""
    serve(FakeWorker(deal), address, number)
