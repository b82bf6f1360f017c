"""The server's end of the tree: partials of all workers to the sum over the step.

In the loop (`server.step_runner`), `pool.gather` ends here. The workers' slots are read, never
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import WorkerError
from distsgd.optim.clip import keeps_digits, squared_norm
from distsgd.parallel.messages import ComputeReply, RequestKind, Sums
from distsgd.parallel.transport.interface import BufferLayout
from distsgd.parallel.tree import GradientSum, fold, joins

_NO_GRADIENT = np.zeros(0)


@dataclass(slots=True)
class Root:
    """The sum over a whole step."""

    sums: Sums
    # [P]; empty where losses only were asked for. May be a worker's slot, as this object's next
    # step overwrites it: read it before that.
    gradient_sum: Array
    squared_norm: float = 0.0  # Of the gradient sum.

    @property
    def is_finite(self) -> bool:
        """Are the sums and the gradient numbers?"""
        return isfinite(self.sums.loss_sum + self.sums.squared_norm_sum + self.squared_norm)


@dataclass(slots=True)
class Part:
    """One answered request: the reply, and a gradient sum for each of its nodes."""

    worker: int
    reply: ComputeReply
    gradients: Array  # [nodes or more, P]; of no meaning where losses only were asked for.

    @property
    def is_finite(self) -> bool:
        """Are the sums numbers, and the gradients where there are any?"""
        reply = self.reply
        if not all(isfinite(node.loss_sum + node.squared_norm_sum) for node in reply.nodes):
            return False
        if reply.kind is not RequestKind.GRADIENT:
            return True
        return bool(np.isfinite(self.gradients[: len(reply.nodes)]).all())

    def has_shape_of(self, other: Part) -> bool:
        """Has it as many nodes, over as many samples?"""
        own, others = self.reply.nodes, other.reply.nodes
        return [node.num_samples for node in own] == [node.num_samples for node in others]

    def keep(self) -> None:
        """Copy what lies in the worker's slots, since they are about to be used again."""
        self.gradients = self.gradients[: len(self.reply.nodes)].copy()


class Reduction:
    """Continues the tree where the workers stopped."""

    def __init__(self, layout: BufferLayout) -> None:
        self._layout = layout
        self._gradient_sum = GradientSum(layout.dtype)
        self._room_P: Array = _NO_GRADIENT

    def sum(self, parts: Sequence[Part], edges: tuple[int, ...]) -> Root:
        """The root over `parts`, which stand in block order; `edges` are the blocks' separators.

        Raises:
            WorkerError: A worker's reply does not have the nodes that its blocks give.
        """
        open_edges: tuple[int, ...] = ()
        for part in parts:
            reply = part.reply
            schedule = joins(edges[reply.first : reply.last + 1])
            if len(reply.nodes) != schedule.num_left:
                raise WorkerError(
                    part.worker,
                    reply.step,
                    f"replied with {len(reply.nodes)} partials for blocks {reply.first} to "
                    f"{reply.last}, which give {schedule.num_left}",
                )
            open_edges = (*open_edges[:-1], *schedule.edges)
        pops = joins(open_edges).pops
        nodes = [node for part in parts for node in part.reply.nodes]
        root = Root(_sum_sums(nodes, pops), _NO_GRADIENT)
        if parts[0].reply.kind is RequestKind.GRADIENT:
            self._sum_gradients(root, parts, pops)
        return root

    def _sum_gradients(self, root: Root, parts: Sequence[Part], pops: tuple[int, ...]) -> None:
        """Give `root` the gradient sum of all parts, and its squared norm."""
        arrays = [part.gradients[at] for part in parts for at in range(len(part.reply.nodes))]
        root.gradient_sum = self._room() if len(arrays) > 1 else arrays[0]
        total = self._gradient_sum.sum_into(root.gradient_sum, arrays, pops)
        is_exact = keeps_digits(total, root.gradient_sum.dtype)
        root.squared_norm = total if is_exact else squared_norm(root.gradient_sum)

    def _room(self) -> Array:
        if not len(self._room_P):
            self._room_P = np.zeros(self._layout.num_parameters, self._layout.dtype)
        return self._room_P


def _sum_sums(nodes: Sequence[Sums], pops: tuple[int, ...]) -> Sums:
    root: Sums
    (root,) = fold(pops, lambda i, _: nodes[i], lambda left, right, _: left.joined(right))
    return root
