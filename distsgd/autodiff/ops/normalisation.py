"""Layer normalisation: each sample by its own mean and deviation, never by those of others.

Shape letters: N samples, M rows of numbers that are normalised together, C numbers of each. No I/O
here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


@dataclass(frozen=True, slots=True)
class LayerNormalisation(Gate):
    """``(x - mean) / √(variance + epsilon) · gain + bias``, mean and variance along the last axis.

    Source: Ba, Kiros, Hinton, "Layer normalization", 2016, arXiv:1607.06450.
    """

    epsilon: float = 1e-5
    name: ClassVar[str] = "layer_norm"
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        x, gain, bias = shapes
        if len(x) < 2 or gain != x[-1:] or bias != x[-1:]:
            raise ModelError(
                f"layer normalisation got shapes {x}, {gain} and {bias}; gain and bias must have a "
                "number for each of the last axis"
            )
        return x

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return per_sample == (True, False, False)

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x, gain_C, bias_C = context.inputs
        size, dtype = x.shape[-1], x.dtype
        x_MC, y_MC = x.reshape(-1, size), context.output.reshape(-1, size)
        normal_MC, scale_M = (
            context.buffer("normal", x_MC.shape),
            context.buffer("scale", x_MC.shape[:1]),
        )
        share_C = np.full(size, 1.0 / size, dtype)
        return [
            partial(np.dot, x_MC, share_C, scale_M),
            partial(np.subtract, x_MC, scale_M[:, None], normal_MC),
            partial(np.vecdot, normal_MC, normal_MC, scale_M),
            partial(np.multiply, scale_M, constant(1.0 / size, dtype), scale_M),
            partial(np.add, scale_M, constant(self.epsilon, dtype), scale_M),
            partial(np.sqrt, scale_M, scale_M),
            partial(np.reciprocal, scale_M, scale_M),
            partial(np.multiply, normal_MC, scale_M[:, None], normal_MC),
            partial(np.multiply, normal_MC, gain_C, y_MC),
            partial(np.add, y_MC, bias_C, y_MC),
        ]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        size = context.output.shape[-1]
        d_MC = grad_or_ones(grad, context).reshape(-1, size)
        normal_MC = context.buffer("normal", d_MC.shape)
        if index == 0:
            return self._stage_input_gradient(context, d_MC, out.reshape(-1, size))
        ones_M = np.ones(len(d_MC), d_MC.dtype)
        if index == 2:
            return [partial(np.dot, ones_M, d_MC, out)]
        product_MC = context.buffer("product", d_MC.shape)
        return [
            partial(np.multiply, d_MC, normal_MC, product_MC),
            partial(np.dot, ones_M, product_MC, out),
        ]

    def _stage_input_gradient(
        self, context: OpContext, d_MC: Array, out_MC: Array
    ) -> list[Operation]:
        """``(g - mean(g) - x̂·mean(g·x̂)) · scale``, with g = d·gain and x̂ the normalised input."""
        shape, gain_C = d_MC.shape, context.inputs[1]
        normal_MC, scale_M = context.buffer("normal", shape), context.buffer("scale", shape[:1])
        g_MC, mean_M = context.buffer("g", shape), context.buffer("mean", shape[:1])
        share_C, share = (
            np.full(shape[1], 1.0 / shape[1], d_MC.dtype),
            constant(1.0 / shape[1], d_MC.dtype),
        )
        return [
            partial(np.multiply, d_MC, gain_C, g_MC),
            partial(np.vecdot, g_MC, normal_MC, mean_M),
            partial(np.multiply, mean_M, share, mean_M),
            partial(np.multiply, normal_MC, mean_M[:, None], out_MC),
            partial(np.dot, g_MC, share_C, mean_M),
            partial(np.subtract, g_MC, out_MC, out_MC),
            partial(np.subtract, out_MC, mean_M[:, None], out_MC),
            partial(np.multiply, out_MC, scale_M[:, None], out_MC),
        ]

    def stage_squared_norms(
        self,
        context: OpContext,
        parameters: frozenset[int],
        grad: Array | None,
        out: Array,
        input_squared_norms: Array | None,
    ) -> list[Operation]:
        """A sample's gain gradient is ``Σ d·x̂`` over its rows, its bias gradient ``Σ d``."""
        del input_squared_norms
        shape = context.output.shape
        inner = (shape[0], math.prod(shape[1:-1]), shape[-1])
        d = grad_or_ones(grad, context).reshape(inner)
        normal = context.buffer("normal", (inner[0] * inner[1], inner[2])).reshape(inner)
        sum_NC, product = context.buffer("sample_sum", shape[:: len(shape) - 1]), None
        operations: list[Operation] = []
        for index in sorted(parameters):
            summed = d
            if index == 1:
                product = context.buffer("sample_product", inner)
                operations.append(partial(np.multiply, d, normal, product))
                summed = product
            norm_N = context.buffer("sample_norm", out.shape) if operations[1:] else out
            operations += [
                partial(np.add.reduce, summed, 1, None, sum_NC),
                partial(np.vecdot, sum_NC, sum_NC, norm_N),
            ]
            if norm_N is not out:
                operations.append(partial(np.add, out, norm_N, out))
        return operations
