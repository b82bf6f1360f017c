"""Cross-entropies, of raw outputs (fused with softmax or sigmoid) and of probabilities.

Shape letters: N samples, O outputs. None of them divides by N: sums travel, means do not. No I/O
here.

Their logarithms near 1 do not cancel, and are made of ``+ - x /`` and ``log`` only: numpy's float32
``log1p`` gives other bits with AVX2 than with AVX-512, these do not. Everything near 1 rests on
``ln((1 + w) / (1 - w)) = 2 artanh w = 2w + w·tail(w²)``, where ``tail(y) = 2y/3 + 2y²/5 + 2y³/7 +
…``: for ``|w| <= 1/3``, which is a quotient from 1/2 to 2, few terms do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from distsgd.autodiff.gate import OpContext, Operation, constant
from distsgd.autodiff.ops.activations import stage_shifted_exponentials
from distsgd.autodiff.ops.domain import UNIT_INTERVAL, Domain
from distsgd.autodiff.ops.losses import ClassLoss, NumberLoss, SampleLoss, stage_row_sums
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

# So many that what is left out, (1/9)^(n + 1) / (2n + 3) of the logarithm, is below a rounding.
_TERMS = {np.dtype(np.float32): 6, np.dtype(np.float64): 15}


def smallest(like: Array) -> float:
    """The smallest number above 0 of an array's dtype: added to a normal one it changes nothing."""
    return float(np.finfo(like.dtype).smallest_subnormal)


def stage_artanh_tail(w: Array, square: Array, tail: Array) -> list[Operation]:
    """Operations that write ``w²`` and ``tail(w²)``, good to a rounding for ``|w| <= 1/3``."""
    factors = [constant(2.0 / (2 * k + 3), w.dtype) for k in range(_TERMS[w.dtype])]
    operations: list[Operation] = [
        partial(np.multiply, w, w, square),
        partial(np.multiply, square, factors.pop(), tail),
    ]
    for factor in reversed(factors):
        operations += [
            partial(np.add, tail, factor, tail),
            partial(np.multiply, tail, square, tail),
        ]
    return operations


def stage_log1p_of_unit(x: Array, out: Array, square: Array, tail: Array) -> list[Operation]:
    """Operations for ``out = ln(1 + x)`` of `x` from 0 to 1, within 2 ulp; the others are scratch.

    ``1 + x`` is ``(1 + w) / (1 - w)`` with ``w = x / (2 + x)``.
    """
    return [
        partial(np.add, x, constant(2, x.dtype), out),
        partial(np.divide, x, out, out),
        *stage_artanh_tail(out, square, tail),
        partial(np.multiply, tail, out, tail),
        partial(np.add, out, out, out),
        partial(np.add, out, tail, out),
    ]


def stage_log_of_sum(
    large: Array, small: Array, out: Array, *, total: Array, log: Array, floor: float = 0.0
) -> list[Operation]:
    """Operations for ``out = ln(large + small)``, exact also where that is near ``ln 1``.

    What rounding takes from the sum is added to its logarithm: ``ln(t + r) = ln t + r/t``.

    Args:
        large: The summand of the larger size wherever the sum is near 1.
        small: The other one.
        out: Overwritten; no memory of the summands, nor are `total` and `log`.
        total: Overwritten with the sum.
        log: Scratch.
        floor: Added to the sum, so that the logarithm of 0 is finite; too small to change others.
    """
    return [
        partial(np.add, large, small, total),
        partial(np.subtract, total, large, out),
        partial(np.subtract, small, out, out),
        *([partial(np.add, total, constant(floor, total.dtype), total)] if floor else ()),
        partial(np.divide, out, total, out),
        partial(np.log, total, log),
        partial(np.add, out, log, out),
    ]


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropy(ClassLoss):
    """``-ln softmax(z_n)[class of n]``, fused and stable.

    Its gradient is ``softmax(z) - one-hot``. With s, the sum of the exponentials of the other
    classes, and o, the own one's, all shifted by the largest output, the loss is ``ln(o + s) -
    ln o``, where o is 1 if the own class has the largest output; and the gradient by the own output
    ``-s / (o + s)``: neither subtracts what is nearly equal.

    Inputs are the raw outputs ``[N, O]`` and the classes ``[N]``, int64, each from 0 to O - 1.
    """

    name: ClassVar[str] = "softmax_cross_entropy"
    fused_activation: ClassVar[Literal["softmax", "sigmoid"] | None] = "softmax"
    compares_probabilities: ClassVar[bool] = True

    def stage_forward(self, context: OpContext) -> list[Operation]:
        z_NO, class_N = context.inputs
        loss_N, (num_rows, num_classes) = context.output, z_NO.shape
        exp_ON, sum_N = (
            context.buffer("exp", (num_classes, num_rows)),
            context.buffer("sum", class_N.shape),
        )
        others_N, own_N = (
            context.buffer("others", class_N.shape),
            context.buffer("own", class_N.shape),
        )
        gap_N, scratch_N = (
            context.buffer("gap", class_N.shape),
            context.buffer("scratch", class_N.shape),
        )
        position_N = context.buffer("position", class_N.shape, np.int64)
        shift, exponentials, total = stage_shifted_exponentials(z_NO, exp_ON, scratch_N, others_N)
        flat = exp_ON.reshape(-1)
        return [
            partial(np.multiply, class_N, constant(num_rows, np.int64), position_N),
            partial(np.add, position_N, np.arange(num_rows, dtype=np.int64), position_N),
            *shift,
            partial(flat.take, position_N, None, gap_N, "clip"),
            exponentials,
            partial(flat.take, position_N, None, own_N, "clip"),
            partial(np.put, flat, position_N, constant(0, loss_N.dtype), "clip"),
            total,
            *stage_log_of_sum(own_N, others_N, loss_N, total=sum_N, log=scratch_N),
            partial(np.subtract, loss_N, gap_N, loss_N),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        exp_ON, rows = context.buffer("exp", out_NO.shape[::-1]), out_NO.shape[:1]
        others_N, sum_N = context.buffer("others", rows), context.buffer("sum", rows)
        minus_N = context.buffer("scratch", rows)
        position_N = context.buffer("position", rows, np.int64)
        return [
            partial(np.negative, others_N, minus_N),
            partial(np.put, exp_ON.reshape(-1), position_N, minus_N, "clip"),
            partial(np.divide, exp_ON, sum_N, out_NO.T),
        ]


@dataclass(frozen=True, slots=True)
class SoftTargetCrossEntropy(SampleLoss):
    """``-Σ t ln softmax(z)`` over a row's outputs; its gradient is ``softmax(z)·Σ t - t``.

    Inputs are the raw outputs ``[N, O]`` and targets ``[N, O]``, each row of them probabilities
    that sum to 1.
    """

    name: ClassVar[str] = "softmax_cross_entropy"

    def check_values(self, *inputs: Array) -> None:
        t_NO = inputs[1]
        UNIT_INTERVAL.check(self.name, "target", t_NO, "give class numbers, or probabilities")
        total_N = t_NO.sum(axis=1, dtype=np.float64)
        # Probabilities that were computed in the outputs' dtype are that near to 1. Written so that
        # not-a-number is far.
        far_N = ~(np.abs(total_N - 1.0) <= np.sqrt(np.finfo(inputs[0].dtype).eps))
        if far_N.any():
            row = int(far_N.argmax())
            raise ModelError(
                f"{self.name} got targets that sum to {total_N[row]:.6g} in row {row}; must be "
                "class numbers, or rows of probabilities that sum to 1 (a one-hot row has a single "
                "1)"
            )

    def stage_forward(self, context: OpContext) -> list[Operation]:
        """``Σ t·(ln Σ exp(z - max) + max - z)``: no term is below 0, so that nothing cancels."""
        z_NO, t_NO = context.inputs
        shape, rows = z_NO.shape, z_NO.shape[:1]
        shifted_NO, exp_NO = context.buffer("shifted", shape), context.buffer("exp", shape)
        largest_N1, rest_N = context.buffer("largest", (*rows, 1)), context.buffer("rest", rows)
        position_N = context.buffer("position", rows, np.intp)
        total_N, gap_N = context.buffer("total", rows), context.buffer("gap", rows)
        sum_N, one = context.buffer("sum", rows), constant(1, z_NO.dtype)
        loss_N, is_out_NO = context.output, context.buffer("is_out", shape, np.bool_)
        row_start_N = np.arange(rows[0], dtype=np.intp) * shape[1]
        return [
            partial(np.maximum.reduce, z_NO, 1, None, largest_N1, keepdims=True),
            partial(np.subtract, z_NO, largest_N1, shifted_NO),
            partial(np.exp, shifted_NO, exp_NO),
            # The largest is left out of the sum: 1 + rest would round away what is small.
            partial(np.argmax, z_NO, 1, position_N),
            partial(np.add, position_N, row_start_N, position_N),
            partial(np.put, exp_NO, position_N, constant(0, exp_NO.dtype)),
            partial(np.add.reduce, exp_NO, 1, None, rest_N),
            partial(np.put, exp_NO, position_N, constant(1, exp_NO.dtype)),
            partial(np.add.reduce, t_NO, 1, total_N.dtype, total_N),
            *stage_log_of_sum(one, rest_N, loss_N, total=sum_N, log=context.buffer("log", rows)),
            partial(np.multiply, loss_N, total_N, loss_N),
            # A masked output is minus infinity, and no number where its target 0 is multiplied.
            partial(np.equal, t_NO, constant(0, t_NO.dtype), is_out_NO),
            partial(np.copyto, shifted_NO, constant(0, z_NO.dtype), where=is_out_NO),
            partial(np.multiply, t_NO, shifted_NO, shifted_NO),
            partial(np.add.reduce, shifted_NO, 1, None, gap_N),
            partial(np.subtract, loss_N, gap_N, loss_N),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        t_NO, rows = context.inputs[1], out_NO.shape[:1]
        exp_NO, rest_N = context.buffer("exp", out_NO.shape), context.buffer("rest", rows)
        total_N, scale_N = context.buffer("total", rows), context.buffer("scale", rows)
        sum_N, top_N = context.buffer("sum", rows), context.buffer("gap", rows)
        position_N = context.buffer("position", rows, np.intp)
        return [
            partial(np.divide, total_N, sum_N, scale_N),
            partial(np.multiply, exp_NO, scale_N[:, None], out_NO),
            partial(np.subtract, out_NO, t_NO, out_NO),
            # Of the largest output, whose softmax may be nearly its target: (Σ t - t) - rest·scale.
            partial(t_NO.reshape(-1).take, position_N, None, top_N, "clip"),
            partial(np.subtract, total_N, top_N, top_N),
            partial(np.multiply, rest_N, scale_N, scale_N),
            partial(np.subtract, top_N, scale_N, top_N),
            partial(np.put, out_NO, position_N, top_N),
        ]


@dataclass(frozen=True, slots=True)
class SigmoidCrossEntropy(NumberLoss):
    """``-Σ t·ln s + (1 - t)·ln(1 - s)``, s the sigmoid of an output z; fused and stable.

    Targets t are numbers from 0 to 1. With q, the target's distance from the side that z is on
    (``1 - t`` where ``z > 0``, else t), and ``e = exp(-|z|)``, the loss is ``Σ |z|·q + ln(1 + e)``,
    a sum of what is never negative, and the gradient ``sigmoid(z) - t`` is ``q - r`` or ``r - q``
    with ``r = e / (1 + e)``: the relative error is at most 4 ulp, however far out z is.
    """

    name: ClassVar[str] = "sigmoid_cross_entropy"
    fused_activation: ClassVar[Literal["softmax", "sigmoid"] | None] = "sigmoid"
    compares_probabilities: ClassVar[bool] = True
    target_domain: ClassVar[Domain] = UNIT_INTERVAL

    def stage_sums(self, context: OpContext) -> list[Operation]:
        z_NO, t_NO = context.inputs
        e_NO, log_NO, a_NO, b_NO = (
            context.buffer(name, z_NO.shape) for name in ("e", "log", "a", "b")
        )
        return [
            partial(np.abs, z_NO, e_NO),
            partial(np.negative, e_NO, e_NO),
            partial(np.exp, e_NO, e_NO),
            *stage_log1p_of_unit(e_NO, log_NO, a_NO, b_NO),
            # |z|·q is the larger of z·(1 - t) and -z·t: they differ by z.
            partial(np.subtract, constant(1, z_NO.dtype), t_NO, a_NO),
            partial(np.multiply, a_NO, z_NO, a_NO),
            partial(np.multiply, z_NO, t_NO, b_NO),
            partial(np.negative, b_NO, b_NO),
            partial(np.maximum, a_NO, b_NO, out=a_NO),
            partial(np.add, log_NO, a_NO, log_NO),
            partial(np.add.reduce, log_NO, 1, None, context.output),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        z_NO, t_NO = context.inputs
        shape, one = out_NO.shape, constant(1, out_NO.dtype)
        e_NO, r_NO, above_NO = (context.buffer(name, shape) for name in ("e", "log", "a"))
        is_above = context.buffer("is_above", shape, np.bool_)
        return [
            partial(np.add, e_NO, one, r_NO),
            partial(np.divide, e_NO, r_NO, r_NO),
            partial(np.subtract, one, t_NO, above_NO),
            partial(np.subtract, above_NO, r_NO, above_NO),
            partial(np.greater, z_NO, constant(0, z_NO.dtype), is_above),
            partial(np.subtract, r_NO, t_NO, out_NO),
            partial(np.copyto, out_NO, above_NO, where=is_above),
        ]


@dataclass(frozen=True, slots=True)
class CrossEntropy(NumberLoss):
    """``-Σ [E ln a + (1 - E) ln(1 - a)]``, E the target; outputs and targets from 0 to 1.

    A logarithm of 0 is taken of the smallest number above it instead, which changes nothing else.

    After a sigmoid or a softmax the fused gates are more exact and twice as fast: an output near 1
    has lost by its rounding what they keep.
    """

    name: ClassVar[str] = "cross_entropy"
    compares_probabilities: ClassVar[bool] = True
    output_domain: ClassVar[Domain] = UNIT_INTERVAL
    target_domain: ClassVar[Domain] = UNIT_INTERVAL

    def stage_sums(self, context: OpContext) -> list[Operation]:
        a_NO, e_NO = context.inputs
        shape, one = a_NO.shape, constant(1, a_NO.dtype)
        minus_NO, of_rest_NO = context.buffer("minus", shape), context.buffer("of_rest", shape)
        total_NO, log_NO = context.buffer("total", shape), context.buffer("log", shape)
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
            stage_row_sums(log_NO, context),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        """``(1 - E)/(1 - a) - E/a``."""
        a_NO, e_NO = context.inputs
        one, tiny = constant(1, out_NO.dtype), constant(np.finfo(out_NO.dtype).tiny, out_NO.dtype)
        of_rest_NO, divisor_NO = (
            context.buffer(name, out_NO.shape) for name in ("of_rest", "total")
        )
        return [
            partial(np.subtract, one, a_NO, divisor_NO),
            partial(np.maximum, divisor_NO, tiny, out=divisor_NO),
            partial(np.subtract, one, e_NO, of_rest_NO),
            partial(np.divide, of_rest_NO, divisor_NO, of_rest_NO),
            partial(np.maximum, a_NO, tiny, out=divisor_NO),
            partial(np.divide, e_NO, divisor_NO, out_NO),
            partial(np.subtract, of_rest_NO, out_NO, out_NO),
        ]
