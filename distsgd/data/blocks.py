"""Blocks: how the places of a mini-batch are cut, and where the tree joins them again.

A mini-batch of ``b`` rows has the places 0 to ``b - 1``. A block is a range of them: the unit of
computing, always of the same rows wherever it runs. Blocks depend on sizes alone and not on the
step, so that a run has few partitions, each made once. No I/O here, and no chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

NO_NEIGHBOUR = 1 << 16  # Higher than every separator: the subtree ends here.
AUTO_LANE_ROWS = (32, 256)


class Block(NamedTuple):
    """Places ``first`` to ``last`` (excluded) of a mini-batch; `number` is its leaf in the tree."""

    number: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Partition:
    """The blocks of a mini-batch, in order, and what the tree needs to know of them.

    Attributes:
        blocks: None of them empty.
        separators: Before each block and behind the last, ``len(blocks) + 1`` numbers: see
            `separators_of`.
        num_leaves: Block numbers are below it.
    """

    blocks: tuple[Block, ...]
    separators: tuple[int, ...]
    num_leaves: int


def separators_of(numbers: list[int]) -> tuple[int, ...]:
    """The separator before each of these block numbers and behind the last.

    The tree is the binary trie of the numbers: two neighbours are joined at the highest bit in
    which they differ, and that bit is their separator.

    >>> separators_of([0, 1, 2])
    (65536, 1, 2, 65536)
    """
    between = [(a ^ b).bit_length() for a, b in pairwise(numbers)]
    return (NO_NEIGHBOUR, *between, NO_NEIGHBOUR)


@lru_cache(maxsize=16)
def partition_of(num_rows: int, num_leaves: int) -> Partition:
    """Cut `num_rows` places into `num_leaves` ranges of about equal size; empty ones are left out.

    >>> partition_of(10, 3).blocks  # doctest: +NORMALIZE_WHITESPACE
    (Block(number=0, first=0, last=3), Block(number=1, first=3, last=6), Block(number=2, first=6,
    last=10))
    """
    cuts = [num_rows * i // num_leaves for i in range(num_leaves + 1)]
    ranges = enumerate(pairwise(cuts))
    blocks = tuple(Block(i, first, last) for i, (first, last) in ranges if first < last)
    return Partition(blocks, separators_of([block.number for block in blocks]), num_leaves)


@dataclass(frozen=True, slots=True)
class Blocking:
    """The rule by which mini-batches are cut into blocks; sizes in rows."""

    lanes: int
    lane_rows: int
    block_rows: int

    @classmethod
    def of(cls, batch_rows: int, *, lanes: int, lane_rows: int | None, block_rows: int) -> Blocking:
        """The rule of a run whose full mini-batches have `batch_rows` rows.

        Args:
            batch_rows: 1 or more.
            lanes: A mini-batch has as many blocks, or a multiple, where it has rows enough.
            lane_rows: With fewer rows for each of them, it has fewer blocks; None: a quarter of the
                mini-batch, within 32 and 256.
            block_rows: The most rows of a block.
        """
        fewest, most = AUTO_LANE_ROWS
        return cls(lanes, lane_rows or min(most, max(fewest, batch_rows // 4)), block_rows)

    def num_leaves(self, num_rows: int) -> int:
        """Into how many ranges a mini-batch of `num_rows` rows is cut.

        >>> rule = Blocking.of(1024, lanes=16, lane_rows=None, block_rows=256)
        >>> [rule.num_leaves(rows) for rows in (1024, 600, 50)]
        [4, 4, 1]
        """
        streams = min(self.lanes, max(1, num_rows // self.lane_rows))
        streams = 1 << (streams.bit_length() - 1)  # The largest power of two that is no more.
        return streams * -(-num_rows // (streams * self.block_rows))

    def partition(self, num_rows: int) -> Partition:
        """The blocks of a mini-batch of `num_rows` rows."""
        return partition_of(num_rows, self.num_leaves(num_rows))

    def evaluation(self, num_rows: int) -> Partition:
        """The blocks of `num_rows` rows of another split, in stored order."""
        return partition_of(num_rows, max(1, -(-num_rows // self.block_rows)))
