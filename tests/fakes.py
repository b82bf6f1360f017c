"""A worker without data: what tests of the parallel parts compute with."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.data.sampler import BatchSampler, Block, Blocking, Sampler
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.messages import ComputeReply, ComputeRequest, Sums, WorkerInfo
from distsgd.parallel.runner import OnPhase, Runner
from distsgd.parallel.service import serve
from distsgd.parallel.transport.interface import Address
from distsgd.parallel.worker import BlockRows, Seen, WorkerSpec

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


class FakeBlocks:
    """A worker whose blocks have no rows, and give `block_gradient`."""

    data_digest = "the same data"

    def __init__(self, spec: WorkerSpec) -> None:
        """Nothing of `spec` is looked at."""

    def read(self, rows: BlockRows, buffer: int) -> tuple[int, Block]:  # noqa: ARG002 -- no rows.
        return rows.step, rows.block

    def compute(self, batch: tuple[int, Block], weights_P: Array, gradient_P: Array | None) -> Sums:
        found_P, sums = block_gradient(weights_P, *batch)
        if gradient_P is not None:
            gradient_P[:] = found_P
        return sums

    def prefetch(self, rows: range) -> None:
        pass


class FakeWorker(Runner):
    """Answers requests with `FakeBlocks`; `before` sees each request first."""

    def __init__(
        self,
        sampler: Sampler,
        before: Callable[[ComputeRequest], None] = lambda _: None,
        on_phase: OnPhase = lambda _phase, _step: None,
    ) -> None:
        spec = WorkerSpec(
            Path("no data"),
            Network([Dense(1)], "quadratic", (1,)),
            sampler,
            dtype="float32",
            seed=0,
            per_sample=True,
            has_classes=False,
            num_test_rows=NUM_TEST_ROWS,
        )
        super().__init__(FakeBlocks(spec), spec, on_phase=on_phase)
        self._sampler, self._before = sampler, before

    def describe(self, worker: int) -> WorkerInfo:
        same = ("the same bits", "the same data", "here", "numpy")
        return WorkerInfo(worker, __version__, os.getpid(), *same)

    def compute(self, request: ComputeRequest) -> ComputeReply:
        self._before(request)
        return super().compute(request)

    def view(self, step: int) -> Seen:
        """As many rows as the step has, each told apart by its step."""
        outputs_BO = np.full((self._sampler.num_samples(step), 1), float(step))
        return Seen(outputs_BO, -outputs_BO, 2.0 * outputs_BO)


def serve_fake(
    address: Address, number: int, sampler: Sampler, is_time: Event | None = None
) -> None:
    """A fake worker's life, for a process of its own; it connects when `is_time`."""
    assert is_time is None or is_time.wait(60)
    serve(FakeWorker(sampler), address, number)
