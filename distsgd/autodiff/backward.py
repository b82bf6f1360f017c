"""The chain rule, once: backward through recorded gates, adding where branches meet.

The eager tape and the static program both stage their backward here; they differ in who owns the
arrays and in when the operations run. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from distsgd.autodiff.gate import Allocate, Gate, OpContext, Operation
from distsgd.autodiff.ops.shapes import Reshape
from distsgd.base.arrays import Array


class Node(NamedTuple):
    """One gate of a circuit; values are numbered in the order in which they came to be."""

    gate: Gate
    inputs: tuple[int, ...]
    output: int


def reached_from(nodes: Sequence[Node], leaves: AbstractSet[int]) -> frozenset[int]:
    """The values that depend on any of `leaves`, those included."""
    reached = set(leaves)
    for node in nodes:
        if not reached.isdisjoint(node.inputs):
            reached.add(node.output)
    return frozenset(reached)


@dataclass(slots=True)
class Backward:
    """Stages the gradients of one root by some values.

    Attributes:
        nodes: The circuit, in the order in which it was computed.
        contexts: Where each node works.
        destinations: Where the gradient of a value is wanted; overwritten.
        allocate: Where all other memory comes from.
        gradients: Filled by `stage`: the gradient of each value that was passed (None stands for
            ones). Element-wise gates hand theirs on in the same memory, unless `keep_all` is set.
    """

    nodes: Sequence[Node]
    contexts: Sequence[OpContext]
    destinations: Mapping[int, Array]
    allocate: Allocate
    keep_all: bool
    gradients: dict[int, Array | None]

    def stage(self) -> list[tuple[int, list[Operation]]]:
        """The operations of each node, last node first.

        `gradients` holds the root's at the beginning.

        Returns:
            Pairs of a node's position and its operations; nodes that lead to no destination are
            left out.
        """
        wanted = reached_from(self.nodes, self.destinations.keys())
        staged = []
        for position in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[position]
            if node.output not in self.gradients or node.output not in wanted:
                continue
            operations: list[Operation] = []
            # The first input comes last: it may take over the memory of the output's gradient.
            for index in range(len(node.inputs) - 1, -1, -1):
                if node.inputs[index] in wanted:
                    operations += self._stage_input(node, self.contexts[position], index)
            staged.append((position, operations))
        return staged

    def _stage_input(self, node: Node, context: OpContext, index: int) -> list[Operation]:
        value, grad = node.inputs[index], self.gradients[node.output]
        if value in self.gradients:  # another branch was here before: add to it
            term = self.allocate(context.inputs[index].shape, context.output.dtype)
            so_far = self.gradients[value]
            assert so_far is not None
            return [
                *node.gate.stage_backward(context, index, grad, term),
                partial(np.add, so_far, term, so_far),
            ]
        if value in self.destinations:
            out = self.destinations[value]
        elif grad is not None and self._may_take_over(node):
            if isinstance(node.gate, Reshape):
                self.gradients[value] = grad.reshape(context.inputs[0].shape)
                return []
            out = grad
        else:
            out = self.allocate(context.inputs[index].shape, context.output.dtype)
        self.gradients[value] = out
        return node.gate.stage_backward(context, index, grad, out)

    def _may_take_over(self, node: Node) -> bool:
        if self.keep_all or node.output in self.destinations:
            return False
        return node.gate.in_place or isinstance(node.gate, Reshape)
