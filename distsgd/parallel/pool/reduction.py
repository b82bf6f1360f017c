"""The server's end of the tree: partials of all workers to the sum over the step.

Third line of the step loop. The workers' slots are read, never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import WorkerError
from distsgd.optim.chunks import chunks
from distsgd.optim.clip import keeps_digits, squared_norm
from distsgd.parallel.messages import ComputeReply, PartialRef, RequestKind, Sums
from distsgd.parallel.pool.sliced_reduce import SlicedReduce
from distsgd.parallel.transport.interface import BufferLayout
from distsgd.parallel.tree import GradientSum, fold, joins

_NO_GRADIENT = np.zeros(0)


@dataclass(slots=True)
class Root:
    """The sum over a whole step."""

    # [P], in `chunks`. May be workers' slots: read them before the next step, do not write.
    gradient_chunks: list[Array]
    sums: Sums
    squared_norm: float = 0.0  # Of the gradient sum; 0 where losses only were asked for.

    @property
    def gradient_sum(self) -> Array:
        """The whole of it, a copy; shape ``[P]``."""
        return np.concatenate(self.gradient_chunks)

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
    """Continues the tree where the workers stopped; `shared` sums large parts with their help."""

    def __init__(self, layout: BufferLayout, shared: SlicedReduce | None = None) -> None:
        self._layout, self._shared = layout, shared
        self._own = GradientSum(layout.dtype)
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
        root = Root([], _sum_sums([node for part in parts for node in part.reply.nodes], pops))
        if parts[0].reply.kind is RequestKind.GRADIENT:
            self._sum_gradients(root, parts, pops)
        return root

    def _sum_gradients(self, root: Root, parts: Sequence[Part], pops: tuple[int, ...]) -> None:
        """Give `root` the gradient sum of all parts, and its squared norm."""
        slots = [(part, slot) for part in parts for slot in range(len(part.reply.nodes))]
        arrays = [part.gradients[slot] for part, slot in slots]
        nodes = [
            PartialRef(slot[0].worker, slot[1], count)
            for slot, count in zip(slots, pops, strict=True)
        ]
        room_P = self._room() if len(arrays) > 1 else arrays[0]
        if self._shared is not None and self._shared.is_worth_it(nodes, len(room_P)):
            step = parts[0].reply.step
            found = self._shared.sum(step, nodes, self._own, arrays=arrays, room=room_P)
        else:
            found = self._own.sum_chunks(arrays, pops, chunks(len(room_P)), out=room_P)
        root.gradient_chunks, total = found.chunks, 0.0
        for of_chunk in found.squared_norms:  # Not `sum`, which compensates since Python 3.12.
            total += of_chunk
        is_exact = keeps_digits(total, room_P.dtype)
        root.squared_norm = total if is_exact else squared_norm(root.gradient_sum)

    def _room(self) -> Array:
        if not len(self._room_P):
            self._room_P = np.zeros(self._layout.num_parameters, self._layout.dtype)
        return self._room_P


def _sum_sums(nodes: Sequence[Sums], pops: tuple[int, ...]) -> Sums:
    root: Sums
    (root,) = fold(pops, lambda i, _: nodes[i], lambda left, right, _: left.joined(right))
    return root
