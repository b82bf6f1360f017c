"""Slow, plain definitions that the code is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from distsgd.data.sampler import Block

T = TypeVar("T")


def tree_over(
    blocks: Sequence[Block],
    leaf: Callable[[Block], T],
    join: Callable[[T, T], T],
    *,
    bit: int = 40,
) -> T:
    """The trie of the blocks' numbers, split at the highest bit first."""
    if len(blocks) == 1:
        return leaf(blocks[0])
    sides: tuple[list[Block], list[Block]] = ([], [])
    for block in blocks:
        sides[block.number >> bit & 1].append(block)
    left, right = (tree_over(side, leaf, join, bit=bit - 1) if side else None for side in sides)
    if left is None or right is None:
        found = left if right is None else right
        assert found is not None
        return found
    return join(left, right)
