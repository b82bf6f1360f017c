"""Divergences: losses that compare positive numbers by their quotient or their roots.

Shape letters: N samples, O outputs; in the formulas E is the target and a the output. All of them
are 0 at a = E and computed so that they are exact near it: from the difference ``d = E - a``, which
rounding leaves alone there, and from ``w = d / (E + a)``, since ``ln(E/a) = 2 artanh w``. Below its
domain a loss is not a number, so that a run that leaves it is seen. None of them divides by N: sums
travel, means do not. No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import OpContext, Operation, constant
from distsgd.autodiff.ops.cross_entropies import smallest, stage_artanh_tail
from distsgd.autodiff.ops.domain import NOT_NEGATIVE, POSITIVE, Domain
from distsgd.autodiff.ops.losses import NumberLoss, stage_row_sums
from distsgd.base.arrays import Array

# Where a quotient is from 1/2 to 2 its logarithm is taken by the series, elsewhere as it is.
_NEAR = 1.0 / 3.0


@dataclass(frozen=True, slots=True)
class Hellinger(NumberLoss):
    """``Σ (√a - √E)² / √2``; outputs and targets of 0 or more."""

    name: ClassVar[str] = "hellinger"
    output_domain: ClassVar[Domain] = NOT_NEGATIVE
    target_domain: ClassVar[Domain] = NOT_NEGATIVE

    def stage_sums(self, context: OpContext) -> list[Operation]:
        a_NO, e_NO = context.inputs
        root_NO, gap_NO = context.buffer("root", a_NO.shape), context.buffer("gap", a_NO.shape)
        sum_NO, loss_N = context.buffer("sum", a_NO.shape), context.output
        tiny = constant(np.finfo(loss_N.dtype).tiny, loss_N.dtype)
        return [
            partial(np.sqrt, a_NO, root_NO),
            partial(np.sqrt, e_NO, sum_NO),
            partial(np.add, sum_NO, root_NO, sum_NO),
            # Far below the root of any number, and so of no effect but where both are 0.
            partial(np.add, sum_NO, tiny, sum_NO),
            partial(np.subtract, a_NO, e_NO, gap_NO),
            partial(np.divide, gap_NO, sum_NO, gap_NO),
            partial(np.vecdot, gap_NO, gap_NO, loss_N),
            partial(np.multiply, loss_N, constant(math.sqrt(0.5), loss_N.dtype), loss_N),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        """``(√a - √E) / (√2 √a)``, ``[N, O]``."""
        root_NO, gap_NO = context.buffer("root", out_NO.shape), context.buffer("gap", out_NO.shape)
        scale = constant(math.sqrt(0.5), out_NO.dtype)
        least = constant(math.sqrt(smallest(out_NO)), out_NO.dtype)
        return [
            partial(np.maximum, root_NO, least, out=out_NO),
            partial(np.divide, gap_NO, out_NO, out_NO),
            partial(np.multiply, out_NO, scale, out_NO),
        ]


@dataclass(frozen=True, slots=True)
class KullbackLeibler(NumberLoss):
    """``Σ E ln(E/a)``; outputs and targets of 0 or more, meant to sum to 1 in each row."""

    generalised: ClassVar[bool] = False
    name: ClassVar[str] = "kullback_leibler"
    compares_probabilities: ClassVar[bool] = True
    output_domain: ClassVar[Domain] = NOT_NEGATIVE
    target_domain: ClassVar[Domain] = NOT_NEGATIVE

    def stage_sums(self, context: OpContext) -> list[Operation]:
        e_NO, part, term_NO = (
            context.inputs[1],
            _Quotient(context),
            context.buffer("term", context.inputs[0].shape),
        )
        tail_NO, w_NO, d_NO = part.tail_NO, part.w_NO, part.d_NO
        operations = part.stage()
        if self.generalised:
            # Far: E·ln(E/a) - d. Near the same is w·(d + E·tail), as E·2w - d is d·w.
            operations += [
                partial(np.multiply, part.log_NO, e_NO, term_NO),
                partial(np.subtract, term_NO, d_NO, term_NO),
                partial(np.multiply, tail_NO, e_NO, tail_NO),
                partial(np.add, tail_NO, d_NO, tail_NO),
                partial(np.multiply, tail_NO, w_NO, tail_NO),
            ]
        else:
            operations += [
                partial(np.multiply, part.log_NO, e_NO, term_NO),
                partial(np.add, tail_NO, constant(2, tail_NO.dtype), tail_NO),
                partial(np.multiply, tail_NO, w_NO, tail_NO),
                partial(np.multiply, tail_NO, e_NO, tail_NO),
            ]
        return [
            *operations,
            partial(np.copyto, term_NO, tail_NO, where=part.is_near),
            stage_row_sums(term_NO, context),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        """``-E/a``; generalised ``(a - E)/a``; ``[N, O]``."""
        a_NO, e_NO = context.inputs
        divisor_NO = context.buffer("tail", out_NO.shape)
        tiny = constant(np.finfo(out_NO.dtype).tiny, out_NO.dtype)
        top = partial(np.subtract, a_NO, e_NO) if self.generalised else partial(np.negative, e_NO)
        return [
            partial(np.maximum, a_NO, tiny, out=divisor_NO),
            partial(top, out_NO),
            partial(np.divide, out_NO, divisor_NO, out_NO),
        ]


class GeneralisedKullbackLeibler(KullbackLeibler):
    """``Σ [E ln(E/a) - E + a]``, which is least at a = E whatever the outputs sum to."""

    generalised: ClassVar[bool] = True
    compares_probabilities: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class ItakuraSaito(NumberLoss):
    """``Σ [E/a - ln(E/a) - 1]``; outputs and targets above 0."""

    name: ClassVar[str] = "itakura_saito"
    output_domain: ClassVar[Domain] = POSITIVE
    target_domain: ClassVar[Domain] = POSITIVE

    def stage_sums(self, context: OpContext) -> list[Operation]:
        a_NO, part, term_NO = (
            context.inputs[0],
            _Quotient(context),
            context.buffer("term", context.inputs[0].shape),
        )
        tail_NO, w_NO, d_NO = part.tail_NO, part.w_NO, part.d_NO
        # Far: d/a - ln(E/a). Near the same is w·(d/a - tail), as d/a - 2w is w·d/a.
        return [
            *part.stage(),
            partial(np.divide, d_NO, a_NO, d_NO),
            partial(np.subtract, d_NO, part.log_NO, term_NO),
            partial(np.subtract, d_NO, tail_NO, tail_NO),
            partial(np.multiply, tail_NO, w_NO, tail_NO),
            partial(np.copyto, term_NO, tail_NO, where=part.is_near),
            stage_row_sums(term_NO, context),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        """``(a - E) / a²``, ``[N, O]``; divided twice, since a² may underflow."""
        a_NO, e_NO = context.inputs
        return [
            partial(np.subtract, a_NO, e_NO, out_NO),
            partial(np.divide, out_NO, a_NO, out_NO),
            partial(np.divide, out_NO, a_NO, out_NO),
        ]


class _Quotient:
    """What the divergences share: E/a by its parts, over buffers of the context.

    Attributes:
        d_NO: ``E - a``.
        w_NO: ``d / (E + a)``.
        tail_NO: ``ln(E/a) = 2w + w·tail`` where it is near.
        log_NO: ``ln(E/a)`` where it is not: of the roots, whose quotient does not underflow, and
            with the root of the smallest number above 0 in place of that of 0.
        is_near: Is E/a from 1/2 to 2?
    """

    def __init__(self, context: OpContext) -> None:
        self._inputs, shape = context.inputs, context.inputs[0].shape
        self.d_NO, self.w_NO, self.tail_NO, self.log_NO, self._root_NO = (
            context.buffer(name, shape) for name in ("d", "w", "tail", "quotient_log", "root")
        )
        self.is_near = context.buffer("is_near", shape, np.bool_)

    def stage(self) -> list[Operation]:
        a_NO, e_NO = self._inputs
        root_NO, log_NO, dtype = self._root_NO, self.log_NO, self.d_NO.dtype
        least = constant(math.sqrt(smallest(a_NO)), dtype)
        return [
            partial(np.sqrt, a_NO, root_NO),
            partial(np.maximum, root_NO, least, out=root_NO),
            partial(np.sqrt, e_NO, log_NO),
            partial(np.maximum, log_NO, least, out=log_NO),
            partial(np.divide, log_NO, root_NO, log_NO),
            partial(np.log, log_NO, log_NO),
            partial(np.add, log_NO, log_NO, log_NO),
            partial(np.subtract, e_NO, a_NO, self.d_NO),
            partial(np.add, e_NO, a_NO, self.w_NO),
            # Outside the domain, so that w stays from -1 to 1; inside it |d| is never the larger.
            partial(np.abs, self.d_NO, self.tail_NO),
            partial(np.maximum, self.w_NO, self.tail_NO, out=self.w_NO),
            # So that 0 by 0 is 0; other sums are the same.
            partial(np.add, self.w_NO, constant(smallest(a_NO), dtype), self.w_NO),
            partial(np.divide, self.d_NO, self.w_NO, self.w_NO),
            partial(np.abs, self.w_NO, self.tail_NO),
            partial(np.less, self.tail_NO, constant(_NEAR, dtype), self.is_near),
            *stage_artanh_tail(self.w_NO, root_NO, self.tail_NO),
        ]
