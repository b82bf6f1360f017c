"""Adding gradient sums in the order of the tree, span by span.

Third line of the step loop, for whoever does it: the server, or a worker for a range of the
parameters. What is added is in the cache when it is added to again, and when its squares are
summed. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distsgd.optim.clip import span_squared_norm
from distsgd.optim.spans import SPAN_LENGTH

Array = NDArray[Any]


class SpannedSum(NamedTuple):
    """A sum in `spans` that may lie in several processes' memory, and the squared norm of each."""

    spans: list[Array]
    squared_norms: list[float]


class GradientSum:
    """Sums nodes of the tree; its own are the spans of sums that wait for their siblings."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = dtype
        self._scratch: list[Array] = []

    def sum_span(self, nodes: Sequence[Array], pops: Sequence[int], out: Array) -> Array:
        """Sum one span of all nodes.

        Args:
            nodes: The same span of each, in block order; not changed.
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
                to = self._scratch_span(height)[: len(out)] if height else out
                stack[-1] = np.add(stack[-1], right, out=to)
        (root,) = stack
        return root

    def sum_spans(
        self, nodes: Sequence[Array], pops: Sequence[int], at: Sequence[slice], *, out: Array
    ) -> SpannedSum:
        """Sum the spans `at` of `nodes`, each ``[P]``; `out`, ``[P]``, is room for them."""
        found = SpannedSum([], [])
        for span in at:
            root = self.sum_span([node[span] for node in nodes], pops, out[span])
            found.spans.append(root)
            found.squared_norms.append(span_squared_norm(root))
        return found

    def _scratch_span(self, height: int) -> Array:
        """Room for a sum at this height of the stack; the lowest lies in what is asked for."""
        while len(self._scratch) < height:
            self._scratch.append(np.zeros(SPAN_LENGTH, self._dtype))
        return self._scratch[height - 1]
