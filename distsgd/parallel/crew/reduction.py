"""The server's end of the tree: partials of all workers to the sum over the step.

Third line of the step loop: ``root = tree_sum(partials)``. The workers' slots are read, never
written. The sum is made piece by piece: what is added is in the cache when it is added to again,
and when its squares are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

import numpy as np

from distsgd.errors import WorkerError
from distsgd.optim.clip import piece_squared_norm, squared_norm
from distsgd.optim.pieces import PIECE_LENGTH, pieces
from distsgd.parallel.exchange.contract import Array, Layout
from distsgd.parallel.messages import Kind, Report
from distsgd.parallel.tree import Sums, joins

_joins = lru_cache(maxsize=4096)(joins)
_NO_GRADIENT = np.zeros(0)


@dataclass(slots=True)
class Root:
    """The sum over a whole step."""

    gradient_sum: Array  # [P]; may be a worker's slot: read it before the next step, do not write.
    sums: Sums
    squared_norm: float = 0.0  # Of `gradient_sum`; 0 where losses only were asked for.

    @property
    def is_finite(self) -> bool:
        """Are the sums and the gradient numbers?"""
        return isfinite(self.sums.loss_sum + self.sums.squared_norm_sum + self.squared_norm)


@dataclass(slots=True)
class Part:
    """One answered order: the report, and a gradient sum for each of its nodes."""

    worker: int
    report: Report
    gradients: Array  # [nodes or more, P]; of no meaning where losses only were asked for.

    def keep(self) -> None:
        """Copy what lies in the worker's slots, since they are about to be used again."""
        self.gradients = self.gradients[: len(self.report.nodes)].copy()


class Reduction:
    """Goes on in the tree where the workers stopped."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._sum_P: Array = _NO_GRADIENT  # The root, where it is more than one node.
        self._scratch: list[Array] = []  # Pieces of sums that wait for their siblings.

    def sum(self, parts: Sequence[Part], edges: tuple[int, ...]) -> Root:
        """The root over `parts`, which stand in block order; `edges` are the blocks' separators.

        Raises:
            WorkerError: A worker's report does not have the nodes that its blocks give.
        """
        open_edges: tuple[int, ...] = ()
        for part in parts:
            report = part.report
            schedule = _joins(edges[report.first : report.last + 1])
            if len(report.nodes) != schedule.num_left:
                raise WorkerError(
                    part.worker,
                    report.step,
                    f"reported {len(report.nodes)} partials for blocks {report.first} to "
                    f"{report.last}, which give {schedule.num_left}",
                )
            open_edges = (*open_edges[:-1], *schedule.edges)
        pops = _joins(open_edges).pops
        root = Root(
            _NO_GRADIENT, _sum_sums([node for it in parts for node in it.report.nodes], pops)
        )
        if parts[0].report.kind is Kind.GRADIENT:
            nodes = [part.gradients[at] for part in parts for at in range(len(part.report.nodes))]
            self._sum_gradients(root, nodes, pops)
        return root

    def _sum_gradients(self, root: Root, nodes: list[Array], pops: tuple[int, ...]) -> None:
        """Give `root` the sum of `nodes`, each ``[P]``, and its squared norm."""
        root.gradient_sum = nodes[0] if len(nodes) == 1 else self._room()
        total = 0.0
        for piece in pieces(len(root.gradient_sum)):
            out = root.gradient_sum[piece]
            if len(nodes) > 1:
                self._sum_piece([node[piece] for node in nodes], pops, out)
            total += piece_squared_norm(out)
        root.squared_norm = total if isfinite(total) else squared_norm(root.gradient_sum)

    def _sum_piece(self, nodes: list[Array], pops: tuple[int, ...], out: Array) -> None:
        """Sum one piece of all `nodes` into `out`, by a stack; its lowest place is `out` itself."""
        stack: list[Array] = []
        for node, joined in zip(nodes, pops, strict=True):
            stack.append(node)
            for _ in range(joined):
                right = stack.pop()
                height = len(stack) - 1
                to = self._scratch_piece(height)[: len(out)] if height else out
                stack[-1] = np.add(stack[-1], right, out=to)

    def _room(self) -> Array:
        if not len(self._sum_P):
            self._sum_P = np.zeros(self._layout.num_parameters, self._layout.dtype)
        return self._sum_P

    def _scratch_piece(self, height: int) -> Array:
        while len(self._scratch) < height:
            self._scratch.append(np.zeros(PIECE_LENGTH, self._layout.dtype))
        return self._scratch[height - 1]


def _sum_sums(nodes: Sequence[Sums], pops: tuple[int, ...]) -> Sums:
    stack: list[Sums] = []
    for node, joined in zip(nodes, pops, strict=True):
        stack.append(node)
        for _ in range(joined):
            right = stack.pop()
            stack[-1] = stack[-1].joined(right)
    (root,) = stack
    return root
