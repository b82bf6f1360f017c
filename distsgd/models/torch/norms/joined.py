"""Gradients that are added over all uses of a parameter before they are squared.

Shape letter: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from distsgd.models.torch.norms.rules import squared
from distsgd.models.torch.norms.tables import Factors, is_worth_it, table_squares
from distsgd.models.torch.norms.use import Use

CHUNK_NUMBERS = 1 << 22
"""Per-sample gradients that are held at a time."""


def joined(uses: list[Use], num_rows: int, like: Tensor) -> Tensor:
    """``[N]``, over all parameters of these uses."""
    total = like.new_zeros(num_rows)
    for factors in _tables(uses):
        places = sum(it.right.shape[1] for it in factors) ** 2
        for rows in _chunks(num_rows, places):
            total[rows] += table_squares(factors, rows)
    sizes = {it: it.numel() for use in uses for it in use.site.parameters.values()}
    for rows in _chunks(num_rows, sum(sizes.values())):
        gradients: dict[Tensor, Tensor] = {}
        for use in uses:
            for parameter, each in use.gradients(rows).items():
                before = gradients.get(parameter)
                gradients[parameter] = each if before is None else before + each
        total[rows] += squared(gradients.values(), total[rows])
    return total


def _tables(uses: list[Use]) -> Iterator[list[Factors]]:
    """Take away the uses of tables whose gradients need not be formed."""
    for table in dict.fromkeys(it for use in uses for it in use.site.parameters.values()):
        own = [use for use in uses if table in set(use.site.parameters.values())]
        factors = [use.factors() for use in own]
        known = [it for it in factors if it is not None]
        if len(known) == len(own) and is_worth_it(table, known):
            for use in own:
                uses.remove(use)
            yield known


def _chunks(num_rows: int, numbers: int) -> Iterator[slice]:
    step = max(1, CHUNK_NUMBERS // max(1, numbers))
    for at in range(0, num_rows, step):
        yield slice(at, at + step)
