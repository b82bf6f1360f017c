"""The worker that computes nothing: its replies travel and sum as those of one that computes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from distsgd.lab.empty_worker import EmptyWorker
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.autotuner import assignments
from distsgd.parallel.pool.reduction import Part, Reduction
from distsgd.parallel.runner import make_runner
from distsgd.parallel.transport.interface import BufferLayout
from distsgd.parallel.tree import most_nodes
from distsgd.parallel.worker import WorkerSpec
from tests.fakes import small_blocks


def a_task(num_blocks: int) -> WorkerSpec:
    sampler = small_blocks(64, num_blocks, lanes=1, lane_rows=1, block_rows=1)
    model = Network([Dense(3)], "softmax_cross_entropy", (2,))
    return WorkerSpec(
        Path("nowhere"),
        model,
        sampler,
        "float32",
        seed=0,
        per_sample=True,
        has_classes=True,
        num_test_rows=0,
    )


@pytest.mark.parametrize("num_blocks", [1, 5, 16])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 7])
def test_sums_of_any_number_of_empty_workers_are_zeros(num_blocks: int, num_workers: int) -> None:
    spec = a_task(num_blocks)
    partition = spec.sampler.partition(0)
    layout = BufferLayout(spec.model.num_parameters, most_nodes(num_blocks), spec.dtype)
    parts = []
    for number, first, last in assignments(num_blocks, tuple(range(num_workers))):
        worker, slots_SP = (
            make_runner(EmptyWorker, spec),
            np.full((layout.num_slots, 9), 7, np.float32),
        )
        worker.attach(np.ones(9, np.float32), slots_SP)
        reply = worker.compute(ComputeRequest(0, RequestKind.GRADIENT, 0, first, last, 0, 0))
        parts.append(Part(number, reply, slots_SP))
    root = Reduction(layout).sum(parts, partition.separators)
    assert root.gradient_sum.tolist() == [0.0] * 9
    assert root.sums.num_samples > 0
    assert all(a.reply.last == b.reply.first for a, b in pairwise(parts))
