"""A loss that grows exponentially with the squared error.

Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np

from distsgd.autodiff.gate import OpContext, Operation, constant
from distsgd.autodiff.ops.losses import SampleLoss
from distsgd.base.arrays import Array
from distsgd.base.settings import Setting


@dataclass(frozen=True, slots=True)
class Exponential(SampleLoss):
    """``tau · exp(Σ (a - E)² / tau)``."""

    tau: Annotated[
        float, Setting("scale of the loss and of the error", "a number above 0", gt=0)
    ] = 1.0
    name: ClassVar[str] = "exponential"

    def stage_forward(self, context: OpContext) -> list[Operation]:
        loss_N = context.output
        error_NO, tau = (
            context.buffer("error", context.inputs[0].shape),
            constant(self.tau, loss_N.dtype),
        )
        growth_N = context.buffer("growth", loss_N.shape)
        return [
            partial(np.subtract, *context.inputs, error_NO),
            partial(np.vecdot, error_NO, error_NO, growth_N),
            partial(np.divide, growth_N, tau, growth_N),
            partial(np.exp, growth_N, growth_N),
            partial(np.multiply, growth_N, tau, loss_N),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        """``2 (a - E) · exp(…)``, ``[N, O]``."""
        error_NO = context.buffer("error", out_NO.shape)
        growth_N = context.buffer("growth", out_NO.shape[:1])
        return [
            partial(np.multiply, error_NO, growth_N[:, None], out_NO),
            partial(np.multiply, out_NO, constant(2, out_NO.dtype), out_NO),
        ]
