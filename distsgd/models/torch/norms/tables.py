"""A large table that several calls use, such as an embedding tied to the last linear layer.

Each use's gradient is a sum over time of outer products, a left factor over the ids and a right one
over the numbers of an embedding; the left of an embedding picks one id. The squared norm of the sum
over the uses is the sum of the products of the Gram matrices of left and right, of all pairs of
uses, so that no row's gradient, as large as the table, is ever formed.

Shape letters: N samples, T and S times of two uses, V ids, C numbers of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Factors:
    """Of one use.

    Attributes:
        left: ``[N, T, V]``, or ids ``[N, T]`` for one number of 1 each.
        right: ``[N, T, C]``.
    """

    left: Tensor
    right: Tensor

    @property
    def picks(self) -> bool:
        """Whether the left factors are ids."""
        return bool(self.left.ndim == 2)

    def rows(self, rows: slice) -> Factors:
        """Those of some rows."""
        return Factors(self.left[rows], self.right[rows])


def product(one: Factors, other: Factors) -> Tensor:
    """Of two uses' gradients, row by row, ``[N]``."""
    right_NTS = torch.bmm(one.right, other.right.mT)
    return (left_gram(one, other) * right_NTS).sum((1, 2))


def left_gram(one: Factors, other: Factors) -> Tensor:
    """``[N, T, S]``."""
    if one.picks and other.picks:
        return (one.left[:, :, None] == other.left[:, None, :]).to(one.right.dtype)
    if one.picks:
        num_others = other.left.shape[1]
        ids_NST = one.left[:, None, :].expand(-1, num_others, -1)
        return other.left.gather(2, ids_NST).mT
    return left_gram(other, one).mT if other.picks else torch.bmm(one.left, other.left.mT)


def is_worth_it(table: nn.Parameter, uses: list[Factors]) -> bool:
    """Whether the Gram matrices take less than forming the gradients, by sizes alone."""
    num_ids, size = table.shape
    times = [it.right.shape[1] for it in uses]
    dense = [it.right.shape[1] for it in uses if not it.picks]
    gram = sum(times) ** 2 * size + sum(dense) ** 2 * num_ids
    return bool(gram < (sum(dense) + len(uses)) * num_ids * size)


def table_squares(uses: list[Factors], rows: slice) -> Tensor:
    """Squared norms of the gradients of the table by some rows, ``[n]``."""
    each = [it.rows(rows) for it in uses]
    return torch.stack([product(one, other) for one in each for other in each]).sum(0)
