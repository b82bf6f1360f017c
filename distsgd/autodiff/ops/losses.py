"""Losses: gates from outputs and targets to one number for each sample.

Shape letters: N samples, O outputs. None of them divides by N: sums travel, means do not. No I/O
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant
from distsgd.autodiff.ops.activations import stage_shifted_exponentials
from distsgd.autodiff.ops.domain import EVERY_NUMBER, UNIT_INTERVAL, Domain
from distsgd.autodiff.ops.linear import stage_row_squared_norms
from distsgd.autodiff.ops.logarithms import stage_log1p_of_unit, stage_log_of_sum
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

Reduction = Literal["sum", "mean"]


class SampleLoss(Gate):
    """What losses share: inputs are outputs ``[N, O]`` and targets, here numbers ``[N, O]``.

    There is no gradient by the targets.
    """

    reads_output: ClassVar[bool] = False
    output_domain: ClassVar[Domain] = EVERY_NUMBER
    target_domain: ClassVar[Domain] = EVERY_NUMBER
    __slots__ = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        outputs, target = shapes
        if len(outputs) != 2 or target != outputs:
            raise ModelError(
                f"{self.name} got outputs of shape {outputs} and targets of shape {target}; both "
                "must be [samples, outputs] (one column of targets for each output)"
            )
        return outputs[:1]

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return dtypes[0]

    def check_values(self, *inputs: Array) -> None:
        outputs_NO, target = inputs
        self.output_shape(outputs_NO.shape, target.shape)
        self.output_domain.check(self.name, "output", outputs_NO)
        self.target_domain.check(self.name, "target", target)

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return all(per_sample)

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        if index != 0:
            raise ModelError(
                f"{self.name} has no gradient by its targets; watch the outputs instead"
            )
        operations = self.stage_gradient(site, out)
        if grad is not None:
            operations.append(partial(np.multiply, out, grad[:, None], out))
        return operations

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        """Operations that write the gradient of each sample's loss by its outputs."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberLoss(SampleLoss):
    """A loss of each output, added up over the outputs of a sample, or averaged.

    Attributes:
        reduction: "sum", or "mean": the sum divided by the number of outputs.
    """

    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        if self.reduction not in ("sum", "mean"):
            raise ModelError(
                f'reduction of {self.name} is {self.reduction!r}; must be "sum" or "mean" (over '
                "the outputs of a sample)"
            )

    def stage_forward(self, site: OpContext) -> list[Operation]:
        return [*self.stage_sums(site), *self._stage_mean(site, site.output)]

    def stage_backward(
        self, site: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        # Not by `super()`, which a class made anew for its slots does not know.
        return [
            *SampleLoss.stage_backward(self, site, index, grad, out),
            *self._stage_mean(site, out),
        ]

    def stage_sums(self, site: OpContext) -> list[Operation]:
        """Operations that write each sample's sum over its outputs."""
        raise NotImplementedError

    def _stage_mean(self, site: OpContext, out: Array) -> list[Operation]:
        num_outputs = site.inputs[0].shape[1]
        if self.reduction == "sum" or num_outputs == 1:
            return []
        return [partial(np.divide, out, constant(num_outputs, out.dtype), out)]


class ClassLoss(SampleLoss):
    """A loss whose targets are classes ``[N]``, int64, each from 0 to O - 1."""

    __slots__ = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        outputs, target = shapes
        if len(outputs) != 2 or target != outputs[:1]:
            raise ModelError(
                f"{self.name} got outputs of shape {outputs} and targets of shape {target}; must "
                "be [samples, classes] and [samples] (targets are class numbers)"
            )
        return target

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        if not np.can_cast(dtypes[1], np.int64):
            raise ModelError(
                f"{self.name} got targets of dtype {dtypes[1]}; must be class numbers, int64 "
                "(convert with astype)"
            )
        return dtypes[0]

    def check_values(self, *inputs: Array) -> None:
        outputs_NO, class_N = inputs
        self.output_shape(outputs_NO.shape, class_N.shape)
        advice = "number the classes from 0, and end the network with an output for each"
        Domain(0, outputs_NO.shape[1] - 1).check(self.name, "class", class_N, advice)


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

    def stage_forward(self, site: OpContext) -> list[Operation]:
        z_NO, class_N = site.inputs
        loss_N, (num_rows, num_classes) = site.output, z_NO.shape
        exp_ON, sum_N = (
            site.buffer("exp", (num_classes, num_rows)),
            site.buffer("sum", class_N.shape),
        )
        others_N, own_N = site.buffer("others", class_N.shape), site.buffer("own", class_N.shape)
        gap_N, scratch_N = site.buffer("gap", class_N.shape), site.buffer("scratch", class_N.shape)
        position_N = site.buffer("position", class_N.shape, np.int64)
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

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        exp_ON, rows = site.buffer("exp", out_NO.shape[::-1]), out_NO.shape[:1]
        others_N, sum_N = site.buffer("others", rows), site.buffer("sum", rows)
        minus_N = site.buffer("scratch", rows)
        position_N = site.buffer("position", rows, np.int64)
        return [
            partial(np.negative, others_N, minus_N),
            partial(np.put, exp_ON.reshape(-1), position_N, minus_N, "clip"),
            partial(np.divide, exp_ON, sum_N, out_NO.T),
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
    target_domain: ClassVar[Domain] = UNIT_INTERVAL

    def stage_sums(self, site: OpContext) -> list[Operation]:
        z_NO, t_NO = site.inputs
        e_NO, log_NO, a_NO, b_NO = (
            site.buffer(name, z_NO.shape) for name in ("e", "log", "a", "b")
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
            partial(np.add.reduce, log_NO, 1, None, site.output),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        z_NO, t_NO = site.inputs
        shape, one = out_NO.shape, constant(1, out_NO.dtype)
        e_NO, r_NO, above_NO = (site.buffer(name, shape) for name in ("e", "log", "a"))
        is_above = site.buffer("is_above", shape, np.bool_)
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
class SquaredError(NumberLoss):
    """``factor · Σ (a - t)²`` over the outputs, with gradient ``2 · factor · (a - t)``.

    A factor of 1 is the squared error, of one half the quadratic cost.
    """

    factor: float = 1.0
    name: ClassVar[str] = "squared_error"

    def stage_sums(self, site: OpContext) -> list[Operation]:
        error_NO, loss_N = site.buffer("error", site.inputs[0].shape), site.output
        operations: list[Operation] = [partial(np.subtract, *site.inputs, error_NO)]
        operations += stage_row_squared_norms(site, "squares", error_NO, loss_N)
        if self.factor != 1.0:
            operations.append(
                partial(np.multiply, loss_N, constant(self.factor, loss_N.dtype), loss_N)
            )
        return operations

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        error_NO = site.buffer("error", out_NO.shape)
        return [partial(np.multiply, error_NO, constant(2.0 * self.factor, error_NO.dtype), out_NO)]
