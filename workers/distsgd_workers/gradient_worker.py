"""The worker: blocks of rows in, partials out.

Between data and server in the loop: it samples as the server does, gathers the rows of its blocks
from distsgd.base.arrays import Array
from the memory-mapped shards, runs the model's program on each, and sums in the fixed tree what it
can. It knows layers, shards and messages; not the optimiser, the server, the configuration or Ray.
It keeps nothing between orders but rows read ahead, so that any worker may be asked for any block,
at any time, again.

Legend: N samples, I inputs, P parameters, S slots.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter

import numpy as np

from distsgd import __version__
from distsgd.autodiff.program import BoundProgram
from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, row_keys_inplace
from distsgd.data.blocks import Block, Partition
from distsgd.data.dataset import DataSet, Rows
from distsgd.parallel.messages import (
    ComputeReply,
    ComputeRequest,
    RequestKind,
    WorkerInfo,
    WorkerSpec,
)
from distsgd.parallel.numerics import probe
from distsgd.parallel.transport.interface import Seen
from distsgd.parallel.tree import Joins, Sums, joins
from distsgd_workers.per_sample import squared_norm_sums
from distsgd_workers.step_view import seen

NO_SLOT = -1  # Losses as in an evaluation.
NO_SLOT_IN_TRAINING = -2  # Losses as in training, with what it leaves to chance.
_joins: Callable[[tuple[int, ...]], Joins] = lru_cache(maxsize=1024)(joins)


class BlockBuffer:
    """Room for the rows of one block, gathered from the shards."""

    def __init__(self, spec: WorkerSpec) -> None:
        most, dtype, model = spec.sampler.blocking.block_rows, spec.dtype, spec.model
        is_class = model.target_kind == "class"
        self.x_NI = np.zeros((most, math.prod(model.input_shape)), dtype)
        self.inputs = self.x_NI.reshape(most, *model.input_shape)
        self.target = (
            np.zeros(most, np.int64) if is_class else np.zeros((most, model.num_outputs), dtype)
        )
        self.squared_norms_N = np.zeros(most, dtype) if spec.per_sample else None
        self.row_numbers_N = np.zeros(most, np.int64)
        self.keys_N = np.zeros(most, np.uint64) if model.has_keys else None

    def fill(self, rows: Rows, count: int) -> None:
        """Gather the first `count` rows of `row_numbers_N`."""
        norms = self.squared_norms_N
        rows.gather_inplace(
            self.row_numbers_N[:count],
            x_NI=self.x_NI[:count],
            target=self.target[:count],
            squared_norms_N=None if norms is None else norms[:count],
        )


class GradientWorker:
    """Computes blocks of one run; see `distsgd.parallel.transport.interface.Worker`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._data = DataSet.open(spec.data, verify=False)
        self._row_order = spec.sampler.row_order(self._data.train.will_need)
        self._buffers = (BlockBuffer(spec), BlockBuffer(spec))
        self._current = 0
        self._ahead: tuple[RequestKind, int, Block] | None = None  # What the other buffer holds.
        self._program = spec.model.program(
            spec.sampler.blocking.block_rows, np.dtype(spec.dtype), per_sample=spec.per_sample
        )
        self._bound: dict[tuple[int, int, int], BoundProgram] = {}
        self._weights_P: Array = np.empty(0)
        self._slots_SP: Array = np.empty((0, 0))

    def describe(self, worker: int) -> WorkerInfo:
        """Who computes, with what, on which data."""
        return WorkerInfo(
            worker, __version__, os.getpid(), probe(self._spec.dtype), self._data.manifest.digest
        )

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        """From now on, read the weights and write partials here."""
        self._weights_P, self._slots_SP = weights_P, slots_SP
        self._bound.clear()

    def compute(self, order: ComputeRequest) -> ComputeReply:
        """Compute the blocks of `order` and leave their sums in the first slots."""
        started, read_s = perf_counter(), 0.0
        partition = self._partition(order.kind, order.step)
        schedule = _joins(partition.separators[order.first : order.last + 1])
        compute = {
            RequestKind.GRADIENT: self._gradient,
            RequestKind.EVALUATE: self._evaluate,
            RequestKind.LOSS: self._losses,
        }[order.kind]
        stack: list[Sums] = []
        blocks = partition.blocks[order.first : order.last]
        for block, pops in zip(blocks, schedule.pops, strict=True):
            reading = perf_counter()
            self._read(order.kind, order.step, block)
            read_s += perf_counter() - reading
            stack.append(compute(block.last - block.first, len(stack)))
            for _ in range(pops):
                self._join(stack, order.kind)
        compute_us = (perf_counter() - started - read_s) * 1e6
        return ComputeReply(*order[:5], read_s * 1e6, compute_us, tuple(stack))

    def view(self, step: int) -> Seen:
        """Look at all rows of training step `step`; no slot is written."""
        blocks = []
        for block in self._partition(RequestKind.LOSS, step).blocks:
            count = block.last - block.first
            self._fill(self._current, RequestKind.LOSS, step, block)
            bound = self._bind(count, NO_SLOT_IN_TRAINING)
            bound.forward()
            target = self._buffers[self._current].target[:count]
            blocks.append(seen(self._spec.model.loss, bound.outputs_NO, target))
        return Seen(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))

    def read_ahead(self, order: ComputeRequest) -> None:
        """Read the first block that this worker may expect of the step after `order`."""
        if order.next_first < order.next_last:
            step = order.step + 1
            block = self._partition(order.kind, step).blocks[order.next_first]
            self._fill(1 - self._current, order.kind, step, block)
            self._ahead = (order.kind, step, block)

    def _partition(self, kind: RequestKind, step: int) -> Partition:
        if kind is not RequestKind.EVALUATE:
            return self._spec.sampler.partition(step)
        return self._spec.sampler.blocking.evaluation(self._data.test.num_rows)

    def _read(self, kind: RequestKind, step: int, block: Block) -> None:
        """Have the rows of `block` in the current buffer.

        Which is the other one if they were read ahead.
        """
        if self._ahead == (kind, step, block):
            self._current = 1 - self._current
            self._ahead = None
        else:
            self._fill(self._current, kind, step, block)

    def _fill(self, at: int, kind: RequestKind, step: int, block: Block) -> None:
        buffer, count = self._buffers[at], block.last - block.first
        row_numbers = buffer.row_numbers_N[:count]
        if kind is not RequestKind.EVALUATE:
            self._row_order.rows_inplace(step, block.first, block.last, row_numbers)
            # A sum over rows in stored order is as good as any, and shards are read front to back.
            row_numbers.sort()
            buffer.fill(self._data.train, count)
            if buffer.keys_N is not None:
                keys_N, seed = buffer.keys_N[:count], self._spec.seed
                row_keys_inplace(seed, Purpose.DROPOUT, step, rows_N=row_numbers, keys_N=keys_N)
        else:
            row_numbers[:] = np.arange(block.first, block.last)
            buffer.fill(self._data.test, count)

    def _bind(self, count: int, slot: int) -> BoundProgram:
        """The program on `count` rows of the current buffer; gradients go to `slot`, if any."""
        key = (self._current, count, slot)
        bound = self._bound.get(key)
        if bound is None:
            buffer = self._buffers[self._current]
            norms, keys_N = buffer.squared_norms_N, buffer.keys_N
            bound = self._bound[key] = self._program.bind(
                buffer.inputs[:count],
                buffer.target[:count],
                weights=self._weights_P,
                gradients=self._slots_SP[slot] if slot >= 0 else None,
                x_squared_norms=norms[:count] if norms is not None and slot >= 0 else None,
                keys=keys_N[:count] if keys_N is not None and slot != NO_SLOT else None,
            )
        return bound

    def _gradient(self, count: int, slot: int) -> Sums:
        bound = self._bind(count, slot)
        bound.forward()
        bound.backward()
        loss_sum = float(np.add.reduce(bound.losses_N, dtype=np.float64))
        if not self._spec.per_sample:
            return Sums(count, loss_sum, 0, 0.0, 0.0)
        norms_N = bound.squared_norms_N
        assert norms_N is not None
        return Sums(count, loss_sum, 0, *squared_norm_sums(norms_N))

    def _evaluate(self, count: int, slot: int) -> Sums:  # noqa: ARG002 -- losses need no slot.
        bound = self._bind(count, NO_SLOT)
        bound.forward()
        loss_sum = float(np.add.reduce(bound.losses_N, dtype=np.float64))
        target = self._buffers[self._current].target[:count]
        return Sums(count, loss_sum, self._correct(bound.outputs_NO, target), 0.0, 0.0)

    def _losses(self, count: int, slot: int) -> Sums:  # noqa: ARG002 -- losses need no slot.
        bound = self._bind(count, NO_SLOT_IN_TRAINING)
        bound.forward()
        return Sums(count, float(np.add.reduce(bound.losses_N, dtype=np.float64)), 0, 0.0, 0.0)

    def _correct(self, outputs_NO: Array, target: Array) -> int:
        """Samples whose largest output is their class; 0 where the labels are no classes."""
        if not self._spec.has_classes:
            return 0
        classes_N = target if target.ndim == 1 else target.argmax(axis=1)
        return int(np.count_nonzero(outputs_NO.argmax(axis=1) == classes_N))

    def _join(self, stack: list[Sums], kind: RequestKind) -> None:
        """Join the two topmost nodes of the stack, in place of the left one."""
        right = stack.pop()
        if kind is RequestKind.GRADIENT:
            top, left = len(stack), self._slots_SP[len(stack) - 1]
            np.add(left, self._slots_SP[top], out=left)
        stack[-1] = stack[-1].joined(right)
