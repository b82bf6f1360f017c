"""A worker's side of a step: sample, read, compute each block, fold the tree.

Between transport and worker in the loop: a request names blocks, the worker computes one at a time,
and the sums of the subtrees that are complete go back. It keeps nothing between requests but rows
that were read ahead, so that any process may be asked for any block, at any time, again.

Legend: P parameters, S slots.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.base.named import Kind, Named
from distsgd.data.sampler import Partition
from distsgd.errors import ConfigError
from distsgd.models.own_errors import OwnCodeError
from distsgd.parallel import numerics
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, Sums, WorkerInfo
from distsgd.parallel.observer import Phase
from distsgd.parallel.tree import fold, joins
from distsgd.parallel.worker import BlockRows, Seen, Viewer, Worker, WorkerSpec

MakeWorker = Callable[[WorkerSpec], Worker]  # A worker's class.
OnPhase = Callable[[Phase, int], None]
WORKER = Kind(
    "parallel.worker",
    rule="a class with read, compute and prefetch, whose instances have a data_digest",
    way_out="derive it from distsgd.parallel.worker:BlockWorker",
    methods=(("read", "compute", "prefetch"),),
    attributes=("data_digest",),
)


def _is_unwatched(_phase: Phase, _step: int) -> None:
    """No observer."""


class Runner:
    """Answers requests with what `worker` computes.

    Args:
        worker: Computes a block.
        spec: The run.
        on_phase: An observer's: "before_read" and "after_compute" around the blocks of a training
            step, "during_evaluation" and "after_evaluation" around those of held-out rows.
    """

    def __init__(
        self, worker: Worker, spec: WorkerSpec, *, on_phase: OnPhase = _is_unwatched
    ) -> None:
        self._worker, self._spec, self._on_phase = worker, spec, on_phase
        self._row_order = spec.sampler.row_order(worker.prefetch)
        self._current = 0
        self._ahead: tuple[BlockRows, Any] | None = None  # In the other buffer.
        self._weights_P: Array = np.empty(0)
        self._slots: list[Array] = []

    def describe(self, worker: int) -> WorkerInfo:
        """Which process computes, with what, on which data; `worker` is its number in the run."""
        found = numerics.profile(self._spec.dtype, self._spec.model)
        return WorkerInfo(
            worker,
            __version__,
            os.getpid(),
            found.bits,
            self._worker.data_digest,
            host=socket.gethostname(),
            arithmetic=str(found),
        )

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        """From now on, read the weights and write partials here."""
        # The same views at every step: a worker may keep what it has prepared for one.
        self._weights_P, self._slots = weights_P, list(slots_SP)

    def compute(self, request: ComputeRequest) -> ComputeReply:
        """Compute the blocks of `request` and leave their sums in the first slots.

        Raises:
            OwnCodeError: The model's own code does, at this step.
        """
        is_test, step = request.kind is RequestKind.EVALUATE, request.step
        self._on_phase("during_evaluation" if is_test else "before_read", step)
        started, read_s = perf_counter(), 0.0
        partition = self._partition(step, is_test=is_test)
        blocks = partition.blocks[request.first : request.last]
        slots = self._slots if request.kind is RequestKind.GRADIENT else None
        worker, weights_P, order = self._worker, self._weights_P, self._row_order

        def leaf(i: int, slot: int) -> Sums:
            nonlocal read_s
            reading = perf_counter()
            batch = self._read(BlockRows(is_test, step, blocks[i], order))
            read_s += perf_counter() - reading
            return worker.compute(batch, weights_P, None if slots is None else slots[slot])

        def join(left: Sums, right: Sums, slot: int) -> Sums:
            if slots is not None:
                np.add(slots[slot], slots[slot + 1], out=slots[slot])
            return left.joined(right)

        pops = joins(partition.separators[request.first : request.last + 1]).pops
        try:
            nodes = tuple(fold(pops, leaf, join))
        except OwnCodeError as error:
            raise error.at(step) from error.__cause__
        compute_us = (perf_counter() - started - read_s) * 1e6
        self._on_phase("after_evaluation" if is_test else "after_compute", step)
        return ComputeReply(*request[:5], read_s * 1e6, compute_us, nodes)

    def prefetch(self, request: ComputeRequest) -> None:
        """Read the first block that is to be expected of the step after `request`."""
        if request.next_first < request.next_last:
            is_test, step = request.kind is RequestKind.EVALUATE, request.step + 1
            block = self._partition(step, is_test=is_test).blocks[request.next_first]
            rows = BlockRows(is_test, step, block, self._row_order)
            self._ahead = None  # Its buffer is about to be overwritten.
            self._ahead = (rows, self._worker.read(rows, 1 - self._current))

    def view(self, step: int) -> Seen:
        """Look at all rows of training step `step`; no slot is written.

        Raises:
            ConfigError: The worker shows nothing.
        """
        worker = self._worker
        if not isinstance(worker, Viewer):
            raise ConfigError(
                [f"{type(worker).__name__} shows nothing of a step; give it a method view"]
            )
        seen = []
        for block in self._partition(step, is_test=False).blocks:
            rows = BlockRows(False, step, block, self._row_order)
            seen.append(worker.view(worker.read(rows, self._current), self._weights_P))
        return Seen(*(np.concatenate(arrays) for arrays in zip(*seen, strict=True)))

    def _partition(self, step: int, *, is_test: bool) -> Partition:
        sampler = self._spec.sampler
        if is_test:
            return sampler.blocking.evaluation(self._spec.num_test_rows)
        return sampler.partition(step)

    def _read(self, rows: BlockRows) -> Any:
        """The rows of a block; in the other buffer, if they were read ahead."""
        if self._ahead is None or self._ahead[0] != rows:
            return self._worker.read(rows, self._current)
        batch, self._ahead = self._ahead[1], None
        self._current = 1 - self._current
        return batch


def make_runner(
    worker: str | MakeWorker, spec: WorkerSpec, *, on_phase: OnPhase = _is_unwatched
) -> Runner:
    """The runner of a worker class, or of one named ``module:class``, in this process.

    Raises:
        ConfigError: There is no such class, what is named is none (then nothing was called), it
            cannot be made, or does not make a worker.
        NumericsError: This process computes other bits than the one that started the run.
    """
    if spec.profile is not None:
        numerics.check_same(spec.profile, spec.dtype, spec.model)
    if isinstance(worker, str):
        made = Named(worker).make(WORKER, spec)
    else:
        made = WORKER.make(getattr(worker, "__qualname__", repr(worker)), worker, spec)
    return Runner(made, spec, on_phase=on_phase)
