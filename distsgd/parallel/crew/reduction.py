"""The server's end of the tree: partials of all workers to the sum over the step.

Third line of the step loop: ``root = tree_sum(partials)``. The workers' slots are read, never
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distsgd.errors import WorkerError
from distsgd.parallel.exchange.contract import Array, Layout
from distsgd.parallel.messages import Kind, Report
from distsgd.parallel.tree import Joins, Sums, joins

_joins = lru_cache(maxsize=4096)(joins)
_NO_GRADIENT = np.zeros(0)


@dataclass(slots=True)
class Root:
    """The sum over a subtree, or over a whole step."""

    gradient_sum: Array  # [P]; may be a worker's slot: read it before the next step, do not write.
    sums: Sums


@dataclass(slots=True)
class Part:
    """One answered order: the report, and a gradient sum for each of its nodes."""

    worker: int
    report: Report
    gradients: Array  # [nodes or more, P]; of no meaning where losses only were asked for.

    def roots(self) -> list[Root]:
        """The nodes with their gradient sums."""
        if self.report.kind is not Kind.GRADIENT:
            # It uses no slots, and may leave more nodes than there are.
            return [Root(_NO_GRADIENT, sums) for sums in self.report.nodes]
        return [Root(self.gradients[i], sums) for i, sums in enumerate(self.report.nodes)]

    def keep(self) -> None:
        """Copy what lies in the worker's slots, since they are about to be used again."""
        self.gradients = self.gradients[: len(self.report.nodes)].copy()


class Reduction:
    """Goes on in the tree where the workers stopped."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._scratch: list[Array] = []

    def sum(self, parts: Sequence[Part], edges: tuple[int, ...]) -> Root:
        """The root over `parts`, which stand in block order; `edges` are the blocks' separators.

        Raises:
            WorkerError: A worker's report does not have the nodes that its blocks give.
        """
        open_edges: tuple[int, ...] = ()
        nodes: list[Root] = []
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
            nodes += part.roots()
        if len(nodes) == 1:
            return nodes[0]
        is_gradient = parts[0].report.kind is Kind.GRADIENT
        return self._sum(nodes, _joins(open_edges), is_gradient=is_gradient)

    def _sum(self, nodes: Sequence[Root], schedule: Joins, *, is_gradient: bool) -> Root:
        stack: list[Root] = []
        for node, pops in zip(nodes, schedule.pops, strict=True):
            stack.append(node)
            for _ in range(pops):
                right = stack.pop()
                left = stack[-1]
                if is_gradient:
                    out = self._scratch_array(len(stack) - 1)
                    np.add(left.gradient_sum, right.gradient_sum, out=out)
                    left = Root(out, left.sums)
                stack[-1] = Root(left.gradient_sum, left.sums.joined(right.sums))
        (root,) = stack
        return root

    def _scratch_array(self, at: int) -> Array:
        """Room for the sum at this height of the stack."""
        while len(self._scratch) <= at:
            self._scratch.append(np.zeros(self._layout.num_parameters, self._layout.dtype))
        return self._scratch[at]
