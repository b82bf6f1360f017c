"""The fixed tree in which partials are summed, and the one fold that sums them.

In the loop (`server.step_runner`), `pool.gather` ends here. Float addition is not associative, so
the order of the additions must not depend on which process computed what, or when. The tree is the
binary trie of the block numbers: two neighbours are joined at the highest bit in which their
numbers differ, lowest bits first; a missing sibling passes through and no zeros are added. Between
two neighbouring blocks that bit is their *separator* (`Partition.separators`), and the separators
alone determine the tree: a process that holds a range of neighbouring blocks joins with a stack
what is complete in it, and another continues from there and arrives at the same sum, bit for bit.
No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.optim.clip import CHUNK_LENGTH, chunk_squared_norm, chunks

T = TypeVar("T")


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
    """Sum neighbouring nodes by a stack, siblings as soon as both are on it.

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


class GradientSum:
    """Adds gradient sums in the order of the tree, chunk by chunk.

    What is added is still in the cache when it is added to again, and when its squares are summed.
    Its own are the chunks of sums that wait for their siblings.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = dtype
        self._scratch: list[Array] = []

    def sum_into(self, out: Array, nodes: Sequence[Array], pops: Sequence[int]) -> float:
        """Sum `nodes`, each ``[P]``, into `out`, ``[P]``, which may be the only node itself.

        Returns:
            The sum's squared norm, chunk by chunk in their dtype; see `optim.clip.keeps_digits`.
        """
        total = 0.0
        for chunk in chunks(len(out)):
            root = self._sum_chunk([node[chunk] for node in nodes], pops, out[chunk])
            total += chunk_squared_norm(root)
        return total

    def _sum_chunk(self, nodes: Sequence[Array], pops: Sequence[int], out: Array) -> Array:
        """Sum one chunk of all nodes.

        Args:
            nodes: The same chunk of each, in block order; not changed.
            pops: How many joins follow each: see `Joins`.
            out: Of the chunk's length; used where there is something to add.

        Returns:
            `out`, or the only node itself.
        """

        def join(left: Array, right: Array, height: int) -> Array:
            to = self._scratch_chunk(height)[: len(out)] if height else out
            return np.add(left, right, out=to)

        (root,) = fold(pops, lambda i, _: nodes[i], join)
        return root

    def _scratch_chunk(self, height: int) -> Array:
        """Room for a sum at this height of the stack; the lowest lies in the caller's `out`."""
        while len(self._scratch) < height:
            self._scratch.append(np.zeros(CHUNK_LENGTH, self._dtype))
        return self._scratch[height - 1]
