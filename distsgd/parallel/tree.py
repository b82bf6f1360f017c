"""The fixed tree in which partials are summed, and the one fold that sums them.

Third line of the step loop. Float addition is not associative, so the order of the additions must
not depend on which process computed what, or when. The tree is the binary trie of the block
numbers: two neighbours are joined at the highest bit in which their numbers differ, lowest bits
first; a missing sibling passes through and no zeros are added. Between two neighbouring blocks that
bit is their *separator* (`Partition.separators`), and the separators alone determine the tree: a
process that holds a range of neighbouring blocks joins with a stack what is complete in it, and
another continues from there and arrives at the same sum, bit for bit. Pure; no arrays here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Sums(NamedTuple):
    """What a partial says beside its gradient sum.

    Float64 and whole numbers, summed in the tree.
    """

    num_samples: int
    loss_sum: float
    correct: int = 0  # Samples whose largest output is their class; counted in evaluations only.
    squared_norm_sum: float = 0.0  # Of the per-sample gradients; 0 when they are not asked for.
    squared_norm_max: float = 0.0

    def joined(self, other: Sums) -> Sums:
        """The sums of both sides; `self` is the left one."""
        return Sums(
            self.num_samples + other.num_samples,
            self.loss_sum + other.loss_sum,
            self.correct + other.correct,
            self.squared_norm_sum + other.squared_norm_sum,
            max(self.squared_norm_max, other.squared_norm_max),
        )


@dataclass(frozen=True, slots=True)
class Joins:
    """How a range of neighbouring nodes is summed by a stack.

    `pops[i]` is how often the two topmost nodes are joined after node `i` was pushed; `edges` are
    the separators around the nodes that then lie on the stack, which cannot be joined without
    their neighbours.
    """

    pops: tuple[int, ...]
    edges: tuple[int, ...]

    @property
    def num_left(self) -> int:
        """Nodes on the stack at the end."""
        return len(self.edges) - 1

    @property
    def depth(self) -> int:
        """The most nodes that lie on the stack at once."""
        most = size = 0
        for pops in self.pops:
            size += 1
            most = max(most, size)
            size -= pops
        return most


@lru_cache(maxsize=4096)
def joins(edges: tuple[int, ...]) -> Joins:
    """How to sum what can be summed of ``len(edges) - 1`` neighbouring nodes.

    `edges` are the separators around each.

    >>> joins((65536, 1, 2, 65536))
    Joins(pops=(0, 1, 1), edges=(65536, 65536))
    >>> joins((2, 1, 2))
    Joins(pops=(0, 1), edges=(2, 2))
    >>> joins((1, 2, 1))
    Joins(pops=(0, 0), edges=(1, 2, 1))
    """
    pops = []
    open_edges = [edges[0]]  # The separator before each node of the stack.
    for i in range(len(edges) - 1):
        if i:
            open_edges.append(edges[i])
        behind, count = edges[i + 1], 0
        # Two nodes are siblings when both separators around the pair are higher than the one
        # between them.
        while len(open_edges) > 1 and open_edges[-1] < behind and open_edges[-1] < open_edges[-2]:
            open_edges.pop()
            count += 1
        pops.append(count)
    return Joins(tuple(pops), (*open_edges, edges[-1]))


def fold(
    pops: Sequence[int], leaf: Callable[[int, int], T], join: Callable[[T, T, int], T]
) -> list[T]:
    """Sum neighbouring nodes by a stack, siblings as soon as both are there.

    Memory is logarithmic in the number of nodes: a node is made when it is pushed.

    >>> fold((0, 1, 1), lambda i, _: "abc"[i], lambda left, right, _: f"({left}+{right})")
    ['((a+b)+c)']

    Args:
        pops: How many joins follow each node: see `Joins.pops`.
        leaf: Makes node ``i``, which will lie at a height of the stack: ``leaf(i, height)``.
        join: Joins two siblings at the height of the left one: ``join(left, right, height)``.

    Returns:
        The nodes that are left, in order.
    """
    stack: list[T] = []
    for i, count in enumerate(pops):
        stack.append(leaf(i, len(stack)))
        for _ in range(count):
            right = stack.pop()
            stack[-1] = join(stack[-1], right, len(stack) - 1)
    return stack


def most_nodes(num_leaves: int) -> int:
    """The most nodes a stack can hold for any range of blocks whose numbers are below `num_leaves`.

    >>> most_nodes(16)
    10
    """
    return 2 * (num_leaves - 1).bit_length() + 2
