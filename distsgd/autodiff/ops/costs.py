"""Costs beside the squared and the fused ones: one number for each sample, with exact gradients.

Shape letters: N samples, O outputs; in the formulas E is the target and a the output. A logarithm
of 0 is taken of the smallest number above it instead, which changes nothing else: at the edge of
its domain a cost stays finite, and below it is not a number, so that a run that leaves the domain
is seen. None of them divides by N: sums travel, means do not. No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import OpContext, Operation, constant
from distsgd.autodiff.ops.domain import UNIT_INTERVAL, Domain
from distsgd.autodiff.ops.logarithms import stage_log_of_sum
from distsgd.autodiff.ops.losses import ClassLoss, NumberLoss, SampleLoss
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


def _positive(setting: str, value: float, gate: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"{setting} of {gate} is {value!r}; must be a number above 0")


def smallest(like: Array) -> float:
    """The smallest number above 0 of an array's dtype: added to a normal one it changes nothing."""
    return float(np.finfo(like.dtype).smallest_subnormal)


def stage_row_sums(x_NO: Array, site: OpContext) -> Operation:
    """The operation that writes the sum of each row as the losses."""
    return partial(np.add.reduce, x_NO, 1, None, site.output)


@dataclass(frozen=True, slots=True)
class CrossEntropy(NumberLoss):
    """``-Σ [E ln a + (1 - E) ln(1 - a)]``; outputs and targets from 0 to 1.

    After a sigmoid or a softmax the fused gates are more exact and twice as fast: an output near 1
    has lost by its rounding what they keep.
    """

    name: ClassVar[str] = "cross_entropy"
    output_domain: ClassVar[Domain] = UNIT_INTERVAL
    target_domain: ClassVar[Domain] = UNIT_INTERVAL

    def stage_sums(self, site: OpContext) -> list[Operation]:
        a_NO, e_NO = site.inputs
        shape, one = a_NO.shape, constant(1, a_NO.dtype)
        minus_NO, of_rest_NO = site.buffer("minus", shape), site.buffer("of_rest", shape)
        total_NO, log_NO = site.buffer("total", shape), site.buffer("log", shape)
        floor = smallest(a_NO)
        return [
            partial(np.negative, a_NO, minus_NO),
            *stage_log_of_sum(one, minus_NO, of_rest_NO, total=total_NO, log=log_NO, floor=floor),
            partial(np.subtract, one, e_NO, total_NO),
            partial(np.multiply, of_rest_NO, total_NO, of_rest_NO),
            partial(np.add, a_NO, constant(floor, a_NO.dtype), log_NO),
            partial(np.log, log_NO, log_NO),
            partial(np.multiply, log_NO, e_NO, log_NO),
            partial(np.add, log_NO, of_rest_NO, log_NO),
            partial(np.negative, log_NO, log_NO),
            stage_row_sums(log_NO, site),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        """``(1 - E)/(1 - a) - E/a``."""
        a_NO, e_NO = site.inputs
        one, tiny = constant(1, out_NO.dtype), constant(np.finfo(out_NO.dtype).tiny, out_NO.dtype)
        of_rest_NO, divisor_NO = (site.buffer(name, out_NO.shape) for name in ("of_rest", "total"))
        return [
            partial(np.subtract, one, a_NO, divisor_NO),
            partial(np.maximum, divisor_NO, tiny, out=divisor_NO),
            partial(np.subtract, one, e_NO, of_rest_NO),
            partial(np.divide, of_rest_NO, divisor_NO, of_rest_NO),
            partial(np.maximum, a_NO, tiny, out=divisor_NO),
            partial(np.divide, e_NO, divisor_NO, out_NO),
            partial(np.subtract, of_rest_NO, out_NO, out_NO),
        ]


@dataclass(frozen=True, slots=True)
class Exponential(SampleLoss):
    """``tau · exp(Σ (a - E)² / tau)``."""

    tau: float = 1.0
    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        _positive("tau", self.tau, self.name)

    def stage_forward(self, site: OpContext) -> list[Operation]:
        loss_N = site.output
        error_NO, tau = site.buffer("error", site.inputs[0].shape), constant(self.tau, loss_N.dtype)
        growth_N = site.buffer("growth", loss_N.shape)
        return [
            partial(np.subtract, *site.inputs, error_NO),
            partial(np.vecdot, error_NO, error_NO, growth_N),
            partial(np.divide, growth_N, tau, growth_N),
            partial(np.exp, growth_N, growth_N),
            partial(np.multiply, growth_N, tau, loss_N),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        """``2 (a - E) · exp(…)``."""
        error_NO = site.buffer("error", out_NO.shape)
        growth_N = site.buffer("growth", out_NO.shape[:1])
        return [
            partial(np.multiply, error_NO, growth_N[:, None], out_NO),
            partial(np.multiply, out_NO, constant(2, out_NO.dtype), out_NO),
        ]


@dataclass(frozen=True, slots=True)
class MeanAbsolute(SampleLoss):
    """``Σ |a - E| / O``, the mean over the outputs; its derivative at 0 is 0."""

    name: ClassVar[str] = "mean_absolute"

    def stage_forward(self, site: OpContext) -> list[Operation]:
        error_NO, size_NO = (site.buffer(name, site.inputs[0].shape) for name in ("error", "size"))
        loss_N = site.output
        return [
            partial(np.subtract, *site.inputs, error_NO),
            partial(np.abs, error_NO, size_NO),
            stage_row_sums(size_NO, site),
            partial(np.divide, loss_N, constant(error_NO.shape[1], loss_N.dtype), loss_N),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        error_NO = site.buffer("error", out_NO.shape)
        return [
            partial(np.sign, error_NO, out_NO),
            partial(np.divide, out_NO, constant(out_NO.shape[1], out_NO.dtype), out_NO),
        ]


@dataclass(frozen=True, slots=True)
class Huber(NumberLoss):
    """``Σ ½ε²`` where ``|ε| ≤ delta``, beyond it ``Σ delta·(|ε| - ½ delta)``, with ε = a - E.

    Source: Huber, "Robust estimation of a location parameter", 1964.
    """

    delta: float = 1.0
    name: ClassVar[str] = "huber"

    def __post_init__(self) -> None:
        NumberLoss.__post_init__(self)
        _positive("delta", self.delta, self.name)

    def stage_sums(self, site: OpContext) -> list[Operation]:
        shape, dtype = site.inputs[0].shape, site.output.dtype
        error_NO, cut_NO = site.buffer("error", shape), site.buffer("cut", shape)
        half_NO, delta = site.buffer("half", shape), constant(self.delta, dtype)
        # With c, the error cut to ±delta, both branches are c·(ε - c/2), and the gradient is c.
        return [
            partial(np.subtract, *site.inputs, error_NO),
            partial(np.clip, error_NO, -delta, delta, cut_NO),
            partial(np.multiply, cut_NO, constant(0.5, dtype), half_NO),
            partial(np.subtract, error_NO, half_NO, half_NO),
            partial(np.vecdot, cut_NO, half_NO, site.output),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        return [partial(np.copyto, out_NO, site.buffer("cut", out_NO.shape))]


@dataclass(frozen=True, slots=True)
class Hinge(ClassLoss):
    """``Σ max(0, a_j - a_c + 1)`` over the classes j other than a sample's own class c.

    Source: Weston and Watkins, "Support vector machines for multi-class pattern recognition", 1999.
    """

    name: ClassVar[str] = "hinge"

    def stage_forward(self, site: OpContext) -> list[Operation]:
        a_NO, class_N = site.inputs
        loss_N, one = site.output, constant(1, a_NO.dtype)
        over_NO, own_N = site.buffer("over", a_NO.shape), site.buffer("own", loss_N.shape)
        position_N = site.buffer("position", loss_N.shape, np.int64)
        row_start_N = np.arange(len(a_NO), dtype=np.int64) * a_NO.shape[1]
        return [
            partial(np.add, row_start_N, class_N, position_N),
            partial(a_NO.reshape(-1).take, position_N, None, own_N, "clip"),
            # In this order, since of two large outputs the difference is exact where it is small.
            partial(np.subtract, a_NO, own_N[:, None], over_NO),
            partial(np.add, over_NO, one, over_NO),
            partial(np.maximum, over_NO, constant(0, a_NO.dtype), out=over_NO),
            # The class itself is 1 over; it does not count.
            partial(np.put, over_NO, position_N, constant(0, a_NO.dtype), "clip"),
            stage_row_sums(over_NO, site),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        over_NO = site.buffer("over", out_NO.shape)
        position_N = site.buffer("position", out_NO.shape[:1], np.int64)
        count_N = site.buffer("count", out_NO.shape[:1])
        return [
            partial(np.sign, over_NO, out_NO),
            partial(np.add.reduce, out_NO, 1, None, count_N),
            partial(np.negative, count_N, count_N),
            partial(np.put, out_NO, position_N, count_N, "clip"),
        ]
