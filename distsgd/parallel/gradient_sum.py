"""Adding gradient sums in the order of the tree, chunk by chunk.

Third line of the step loop, for whoever does it: the server, or a worker for a range of the
parameters. What is added is in the cache when it is added to again, and when its squares are
summed. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.optim.chunks import CHUNK_LENGTH
from distsgd.optim.clip import chunk_squared_norm


class ChunkedSum(NamedTuple):
    """A sum in `chunks` that may lie in several processes' memory, and the squared norm of each."""

    chunks: list[Array]
    squared_norms: list[float]


class GradientSum:
    """Sums nodes of the tree; its own are the chunks of sums that wait for their siblings."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = dtype
        self._scratch: list[Array] = []

    def sum_chunk(self, nodes: Sequence[Array], pops: Sequence[int], out: Array) -> Array:
        """Sum one chunk of all nodes.

        Args:
            nodes: The same chunk of each, in block order; not changed.
            pops: How many joins follow each: see `tree.Joins`.
            out: Of the span's length; used where there is something to add.

        Returns:
            `out`, or the only node itself.
        """
        stack: list[Array] = []
        for node, joined in zip(nodes, pops, strict=True):
            stack.append(node)
            for _ in range(joined):
                right = stack.pop()
                height = len(stack) - 1
                to = self._scratch_chunk(height)[: len(out)] if height else out
                stack[-1] = np.add(stack[-1], right, out=to)
        (root,) = stack
        return root

    def sum_chunks(
        self, nodes: Sequence[Array], pops: Sequence[int], at: Sequence[slice], *, out: Array
    ) -> ChunkedSum:
        """Sum the chunks `at` of `nodes`, each ``[P]``; `out`, ``[P]``, is room for them."""
        found = ChunkedSum([], [])
        for chunk in at:
            root = self.sum_chunk([node[chunk] for node in nodes], pops, out[chunk])
            found.chunks.append(root)
            found.squared_norms.append(chunk_squared_norm(root))
        return found

    def _scratch_chunk(self, height: int) -> Array:
        """Room for a sum at this height of the stack; the lowest lies in what is asked for."""
        while len(self._scratch) < height:
            self._scratch.append(np.zeros(CHUNK_LENGTH, self._dtype))
        return self._scratch[height - 1]
