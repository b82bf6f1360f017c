"""Adding gradient sums in the order of the tree, chunk by chunk.

Third line of the step loop: done by the server, or by a worker for a range of the parameters. What
is added is still in the cache when it is added to again, and when its squares are summed. No I/O
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.optim.chunks import CHUNK_LENGTH, chunks
from distsgd.optim.clip import chunk_squared_norm
from distsgd.parallel.messages import ReduceReply, ReduceRequest
from distsgd.parallel.tree import fold


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
            out: Of the chunk's length; used where there is something to add.

        Returns:
            `out`, or the only node itself.
        """

        def join(left: Array, right: Array, height: int) -> Array:
            to = self._scratch_chunk(height)[: len(out)] if height else out
            return np.add(left, right, out=to)

        (root,) = fold(pops, lambda i, _: nodes[i], join)
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
        """Room for a sum at this height of the stack; the lowest lies in the caller's `out`."""
        while len(self._scratch) < height:
            self._scratch.append(np.zeros(CHUNK_LENGTH, self._dtype))
        return self._scratch[height - 1]


class SliceReducer:
    """A worker's part of a sum that several processes share: see `pool.sliced_reduce`."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._gradient_sum = GradientSum(dtype)

    def reduce(
        self, request: ReduceRequest, partials: Sequence[Array], *, out: Array
    ) -> ReduceReply:
        """Sum the chunks of `request` over `partials`, each ``[P]``, into `out`, ``[P]``."""
        pops = [node.pops for node in request.nodes]
        at = chunks(len(out))[request.first : request.last]
        found = self._gradient_sum.sum_chunks(partials, pops, at, out=out)
        return ReduceReply(*request[:4], tuple(found.squared_norms))
