"""A worker that computes nothing: what remains of a step is what a step costs.

It writes a sum of zeros for every subtree of its blocks, as a gradient worker would, so that what
travels, what is summed and what is updated are the same.

Legend: P parameters, S slots.
"""

from __future__ import annotations

import os
from functools import lru_cache
from time import perf_counter

import numpy as np

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.parallel.messages import ComputeReply, ComputeRequest, WorkerInfo, WorkerSpec
from distsgd.parallel.transport.interface import Seen
from distsgd.parallel.tree import Sums, joins

NOTHING = Sums(1, 0.0, 0, 0.0, 0.0)
_joins = lru_cache(maxsize=1024)(joins)


class EmptyWorker:
    """Answers at once; see `distsgd.parallel.transport.interface.Worker`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._sampler = spec.sampler
        self._slots_SP: Array = np.empty((0, 0))

    def describe(self, worker: int) -> WorkerInfo:
        """Who answers."""
        return WorkerInfo(worker, __version__, os.getpid(), "", "")

    def attach(self, weights_P: Array, slots_SP: Array) -> None:  # noqa: ARG002 -- not looked at.
        """From now on, write partials here."""
        self._slots_SP = slots_SP

    def compute(self, order: ComputeRequest) -> ComputeReply:
        """Leave sums of zeros in the first slots."""
        started = perf_counter()
        edges = self._sampler.partition(order.step).separators
        num_nodes = _joins(edges[order.first : order.last + 1]).num_left
        self._slots_SP[:num_nodes].fill(0)
        compute_us = (perf_counter() - started) * 1e6
        return ComputeReply(*order[:5], 0.0, compute_us, (NOTHING,) * num_nodes)

    def read_ahead(self, order: ComputeRequest) -> None:
        """There is nothing to read."""

    def view(self, step: int) -> Seen:
        """There is nothing to see."""
        raise NotImplementedError(f"an empty worker sees nothing of step {step}")
