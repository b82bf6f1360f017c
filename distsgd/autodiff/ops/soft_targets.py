"""The cross-entropy of a softmax with targets that are probabilities, one-hot rows among them.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import OpContext, Operation, constant
from distsgd.autodiff.ops.domain import UNIT_INTERVAL
from distsgd.autodiff.ops.logarithms import stage_log_of_sum
from distsgd.autodiff.ops.losses import SampleLoss
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


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

    def stage_forward(self, site: OpContext) -> list[Operation]:
        """``Σ t·(ln Σ exp(z - max) + max - z)``: no term is below 0, so that nothing cancels."""
        z_NO, t_NO = site.inputs
        shape, rows = z_NO.shape, z_NO.shape[:1]
        shifted_NO, exp_NO = site.buffer("shifted", shape), site.buffer("exp", shape)
        largest_N1, rest_N = site.buffer("largest", (*rows, 1)), site.buffer("rest", rows)
        position_N = site.buffer("position", rows, np.intp)
        total_N, gap_N = site.buffer("total", rows), site.buffer("gap", rows)
        sum_N, one = site.buffer("sum", rows), constant(1, z_NO.dtype)
        loss_N, is_out_NO = site.output, site.buffer("is_out", shape, np.bool_)
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
            *stage_log_of_sum(one, rest_N, loss_N, total=sum_N, log=site.buffer("log", rows)),
            partial(np.multiply, loss_N, total_N, loss_N),
            # A masked output is minus infinity, and no number where its target 0 is multiplied.
            partial(np.equal, t_NO, constant(0, t_NO.dtype), is_out_NO),
            partial(np.copyto, shifted_NO, constant(0, z_NO.dtype), where=is_out_NO),
            partial(np.multiply, t_NO, shifted_NO, shifted_NO),
            partial(np.add.reduce, shifted_NO, 1, None, gap_N),
            partial(np.subtract, loss_N, gap_N, loss_N),
        ]

    def stage_gradient(self, site: OpContext, out_NO: Array) -> list[Operation]:
        t_NO, rows = site.inputs[1], out_NO.shape[:1]
        exp_NO, rest_N = site.buffer("exp", out_NO.shape), site.buffer("rest", rows)
        total_N, scale_N = site.buffer("total", rows), site.buffer("scale", rows)
        sum_N, top_N = site.buffer("sum", rows), site.buffer("gap", rows)
        position_N = site.buffer("position", rows, np.intp)
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
