"""Costs beside the squared and the fused ones: one number for each sample, with exact gradients.

Shape letters: N samples, O outputs; in the formulas E is the target and a the output. A logarithm
or a root of 0 is taken of the smallest normal number instead, which changes nothing else: at the
edge of its domain a cost stays finite, and below it is not a number, so that a run that leaves the
domain is seen. None of them divides by N: sums travel, means do not. No I/O here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import Array, Operation, Site, constant
from distsgd.autodiff.losses import ClassLoss, NumberLoss, check_numbers
from distsgd.errors import ModelError


def _positive(setting: str, value: float, gate: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"{setting} of {gate} is {value!r}; must be a number above 0")


def _stage_raised(x: Array, out: Array) -> Operation:
    """``out = x`` plus the smallest normal number: the same but at 0, and still negative below."""
    return partial(np.add, x, constant(np.finfo(out.dtype).tiny, out.dtype), out)


def _stage_row_sums(x_NO: Array, site: Site) -> Operation:
    return partial(np.add.reduce, x_NO, 1, None, site.output)


@dataclass(frozen=True, slots=True)
class CrossEntropy(NumberLoss):
    """``-Σ [E ln a + (1 - E) ln(1 - a)]``; outputs and targets from 0 to 1.

    After a sigmoid or a softmax the fused gates are more exact and twice as fast.
    """

    name: ClassVar[str] = "cross_entropy"

    def check_values(self, *inputs: Array) -> None:
        a_NO, e_NO = inputs
        check_numbers(self.name, "output", a_NO, lowest=0.0, highest=1.0)
        check_numbers(self.name, "target", e_NO, lowest=0.0, highest=1.0)

    def stage_forward(self, site: Site) -> list[Operation]:
        a_NO, e_NO = site.inputs
        one, shape = constant(1, a_NO.dtype), a_NO.shape
        p_NO, q_NO = site.buffer("p", shape), site.buffer("q", shape)
        u_NO, v_NO = site.buffer("u", shape), site.buffer("v", shape)
        return [
            _stage_raised(a_NO, p_NO),
            partial(np.subtract, one, a_NO, q_NO),
            _stage_raised(q_NO, q_NO),
            partial(np.log, p_NO, u_NO),
            partial(np.multiply, u_NO, e_NO, u_NO),
            partial(np.log, q_NO, v_NO),
            partial(np.add, u_NO, v_NO, u_NO),
            partial(np.multiply, v_NO, e_NO, v_NO),
            partial(np.subtract, v_NO, u_NO, v_NO),
            _stage_row_sums(v_NO, site),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        """``(1 - E)/(1 - a) - E/a``."""
        e_NO, shape = site.inputs[1], out_NO.shape
        p_NO, q_NO, u_NO = (site.buffer(name, shape) for name in ("p", "q", "u"))
        return [
            partial(np.subtract, constant(1, out_NO.dtype), e_NO, out_NO),
            partial(np.divide, out_NO, q_NO, out_NO),
            partial(np.divide, e_NO, p_NO, u_NO),
            partial(np.subtract, out_NO, u_NO, out_NO),
        ]


@dataclass(frozen=True, slots=True)
class Exponential(NumberLoss):
    """``tau · exp(Σ (a - E)² / tau)``."""

    tau: float = 1.0
    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        _positive("tau", self.tau, self.name)

    def stage_forward(self, site: Site) -> list[Operation]:
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

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        """``2 (a - E) · exp(…)``."""
        error_NO = site.buffer("error", out_NO.shape)
        growth_N = site.buffer("growth", out_NO.shape[:1])
        return [
            partial(np.multiply, error_NO, growth_N[:, None], out_NO),
            partial(np.multiply, out_NO, constant(2, out_NO.dtype), out_NO),
        ]


@dataclass(frozen=True, slots=True)
class Hellinger(NumberLoss):
    """``Σ (√a - √E)² / √2``; outputs and targets of 0 or more."""

    name: ClassVar[str] = "hellinger"

    def check_values(self, *inputs: Array) -> None:
        check_numbers(self.name, "output", inputs[0], lowest=0.0)
        check_numbers(self.name, "target", inputs[1], lowest=0.0)

    def stage_forward(self, site: Site) -> list[Operation]:
        a_NO, e_NO = site.inputs
        root_NO, gap_NO = site.buffer("root", a_NO.shape), site.buffer("gap", a_NO.shape)
        loss_N = site.output
        return [
            partial(np.sqrt, a_NO, root_NO),
            partial(np.sqrt, e_NO, gap_NO),
            partial(np.subtract, root_NO, gap_NO, gap_NO),
            partial(np.vecdot, gap_NO, gap_NO, loss_N),
            partial(np.multiply, loss_N, constant(math.sqrt(0.5), loss_N.dtype), loss_N),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        """``(√a - √E) / (√2 √a)``."""
        root_NO, gap_NO = site.buffer("root", out_NO.shape), site.buffer("gap", out_NO.shape)
        scale = constant(math.sqrt(0.5), out_NO.dtype)
        smallest = constant(math.sqrt(np.finfo(out_NO.dtype).tiny), out_NO.dtype)
        return [
            partial(np.maximum, root_NO, smallest, out=out_NO),
            partial(np.divide, gap_NO, out_NO, out_NO),
            partial(np.multiply, out_NO, scale, out_NO),
        ]


@dataclass(frozen=True, slots=True)
class KullbackLeibler(NumberLoss):
    """``Σ E ln(E/a)``; outputs and targets of 0 or more, meant to sum to 1 in each row.

    With ``generalised=True`` ``Σ [E ln(E/a) - E + a]``, which is least at a = E whatever they sum
    to.
    """

    generalised: bool = False
    name: ClassVar[str] = "kullback_leibler"

    def check_values(self, *inputs: Array) -> None:
        check_numbers(self.name, "output", inputs[0], lowest=0.0)
        check_numbers(self.name, "target", inputs[1], lowest=0.0)

    def stage_forward(self, site: Site) -> list[Operation]:
        a_NO, e_NO = site.inputs
        p_NO, term_NO = site.buffer("p", a_NO.shape), site.buffer("term", a_NO.shape)
        log_NO = site.buffer("log", a_NO.shape)
        operations: list[Operation] = [
            _stage_raised(a_NO, p_NO),
            _stage_raised(e_NO, term_NO),
            partial(np.log, term_NO, term_NO),
            partial(np.log, p_NO, log_NO),
            partial(np.subtract, term_NO, log_NO, term_NO),
            partial(np.multiply, term_NO, e_NO, term_NO),
        ]
        if self.generalised:
            operations += [
                partial(np.subtract, term_NO, e_NO, term_NO),
                partial(np.add, term_NO, a_NO, term_NO),
            ]
        return [*operations, _stage_row_sums(term_NO, site)]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        """``-E/a``, and 1 more when generalised."""
        p_NO, e_NO = site.buffer("p", out_NO.shape), site.inputs[1]
        operations: list[Operation] = [partial(np.divide, e_NO, p_NO, out_NO)]
        if self.generalised:
            one = constant(1, out_NO.dtype)
            return [*operations, partial(np.subtract, one, out_NO, out_NO)]
        return [*operations, partial(np.negative, out_NO, out_NO)]


@dataclass(frozen=True, slots=True)
class ItakuraSaito(NumberLoss):
    """``Σ [E/a - ln(E/a) - 1]``; outputs and targets above 0."""

    name: ClassVar[str] = "itakura_saito"

    def check_values(self, *inputs: Array) -> None:
        check_numbers(self.name, "output", inputs[0], above=0.0)
        check_numbers(self.name, "target", inputs[1], above=0.0)

    def stage_forward(self, site: Site) -> list[Operation]:
        a_NO, e_NO = site.inputs
        term_NO, log_NO = site.buffer("term", a_NO.shape), site.buffer("log", a_NO.shape)
        return [
            # Two logarithms, not that of the quotient, which may underflow.
            partial(np.log, a_NO, term_NO),
            partial(np.log, e_NO, log_NO),
            partial(np.subtract, term_NO, log_NO, term_NO),
            partial(np.divide, e_NO, a_NO, log_NO),
            partial(np.subtract, log_NO, constant(1, a_NO.dtype), log_NO),
            partial(np.add, term_NO, log_NO, term_NO),
            _stage_row_sums(term_NO, site),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        """``(a - E) / a²``, divided twice, since a² may underflow."""
        a_NO, e_NO = site.inputs
        return [
            partial(np.subtract, a_NO, e_NO, out_NO),
            partial(np.divide, out_NO, a_NO, out_NO),
            partial(np.divide, out_NO, a_NO, out_NO),
        ]


@dataclass(frozen=True, slots=True)
class MeanAbsolute(NumberLoss):
    """``Σ |a - E| / O``, the mean over the outputs; its derivative at 0 is 0."""

    name: ClassVar[str] = "mean_absolute"

    def stage_forward(self, site: Site) -> list[Operation]:
        error_NO, size_NO = (site.buffer(name, site.inputs[0].shape) for name in ("error", "size"))
        loss_N = site.output
        return [
            partial(np.subtract, *site.inputs, error_NO),
            partial(np.abs, error_NO, size_NO),
            _stage_row_sums(size_NO, site),
            partial(np.divide, loss_N, constant(error_NO.shape[1], loss_N.dtype), loss_N),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
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
        _positive("delta", self.delta, self.name)

    def stage_forward(self, site: Site) -> list[Operation]:
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

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        return [partial(np.copyto, out_NO, site.buffer("cut", out_NO.shape))]


@dataclass(frozen=True, slots=True)
class Hinge(ClassLoss):
    """``Σ max(0, a_j - a_c + 1)`` over the classes j other than a sample's own class c.

    Source: Weston and Watkins, "Support vector machines for multi-class pattern recognition", 1999.
    """

    name: ClassVar[str] = "hinge"

    def stage_forward(self, site: Site) -> list[Operation]:
        a_NO, class_N = site.inputs
        loss_N, one = site.output, constant(1, a_NO.dtype)
        over_NO, own_N = site.buffer("over", a_NO.shape), site.buffer("own", loss_N.shape)
        position_N = site.buffer("position", loss_N.shape, np.int64)
        row_start_N = np.arange(len(a_NO), dtype=np.int64) * a_NO.shape[1]
        return [
            partial(np.add, row_start_N, class_N, position_N),
            partial(a_NO.reshape(-1).take, position_N, None, own_N, "clip"),
            partial(np.subtract, own_N, one, own_N),
            partial(np.subtract, a_NO, own_N[:, None], over_NO),
            partial(np.maximum, over_NO, constant(0, a_NO.dtype), out=over_NO),
            # The class itself is 1 over; it does not count.
            partial(np.put, over_NO, position_N, constant(0, a_NO.dtype), "clip"),
            _stage_row_sums(over_NO, site),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        over_NO = site.buffer("over", out_NO.shape)
        position_N = site.buffer("position", out_NO.shape[:1], np.int64)
        count_N = site.buffer("count", out_NO.shape[:1])
        return [
            partial(np.sign, over_NO, out_NO),
            partial(np.add.reduce, out_NO, 1, None, count_N),
            partial(np.negative, count_N, count_N),
            partial(np.put, out_NO, position_N, count_N, "clip"),
        ]
