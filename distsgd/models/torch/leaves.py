"""What learns behind some outputs: the leaves of their graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def uses_of(outputs: list[Tensor]) -> Iterator[tuple[Any, Tensor]]:
    """Each step of the graph that takes a tensor that learns, and that tensor."""
    waiting = [it.grad_fn for it in outputs if it.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        step = waiting.pop()
        for behind, _ in step.next_functions:
            leaf = getattr(behind, "variable", None)
            if leaf is not None:
                yield step, leaf
            elif behind is not None and behind not in seen:
                seen.add(behind)
                waiting.append(behind)
