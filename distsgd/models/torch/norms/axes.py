"""Where the rows lie in a tensor, found from its shapes for 2 rows and for 3."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from distsgd.autodiff.gate import Shape

FEW, MORE = 2, 3
MIXED = -1
"""The rows are no axis of their own."""

RowAxis = int | None
"""The axis of the rows; None where there is none; `MIXED`."""


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors in tuples, lists and dictionaries of them, in a fixed order."""
    if isinstance(tree, Tensor):
        return [tree]
    return [it for it in pytree.tree_leaves(tree) if isinstance(it, Tensor)]


def versions_of(tensors: list[Tensor]) -> list[int]:
    """How often each was written into."""
    return [it._version for it in tensors]  # noqa: SLF001 - not public, and nothing public tells it.


def row_axis(few: Shape, more: Shape) -> RowAxis:
    """Which axis follows the number of rows.

    >>> row_axis((2, 5), (3, 5)), row_axis((7, 2, 5), (7, 3, 5)), row_axis((5,), (5,))
    (0, 1, None)
    >>> row_axis((10, 4), (15, 4))
    -1
    """
    if few == more:
        return None
    if len(few) != len(more):
        return MIXED
    differ = [axis for axis, sizes in enumerate(zip(few, more, strict=True)) if len(set(sizes)) > 1]
    is_plain = len(differ) == 1 and (few[differ[0]], more[differ[0]]) == (FEW, MORE)
    return differ[0] if is_plain else MIXED
