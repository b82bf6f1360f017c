"""Products: the affine gate of dense layers, and the plain product of matrices and vectors.

Shape letters: N samples, I inputs, O outputs. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

# From so many columns on, a dot product a row beats squaring all and summing by a product.
WIDE = 64
# From so many numbers on, an outer product by `einsum` beats a multiplication by a third.
LARGE = 16_384


def stage_row_squared_norms(
    context: OpContext, name: str, x_NI: Array, out: Array
) -> list[Operation]:
    """Operations that write the squared norm of each row of `x_NI` into `out`, shape ``[N]``."""
    if x_NI.shape[1] >= WIDE:
        return [partial(np.vecdot, x_NI, x_NI, out)]
    square_NI = context.buffer(name, x_NI.shape)
    ones_I = np.ones(x_NI.shape[1], x_NI.dtype)
    return [partial(np.multiply, x_NI, x_NI, square_NI), partial(np.dot, square_NI, ones_I, out)]


def stage_product(left: Array, right: Array, out: Array) -> Operation:
    """The operation ``out = left @ right``, the fastest for the shapes; `out` is C-contiguous."""
    if left.shape[1] == 1:
        # An outer product: the same numbers as the matrix product, at least five times as fast.
        if out.size >= LARGE:
            return partial(np.einsum, "i,o->io", left[:, 0], right[0], out=out)
        return partial(np.multiply, left, right, out)
    if left.shape[0] == 1:
        return partial(np.dot, left[0], right, out[0])
    return partial(np.dot, left, right, out)


def _matrix_product_shape(left: Shape, right: Shape) -> Shape:
    if len(left) != 2 or len(right) != 2 or left[1] != right[0]:
        raise ModelError(
            f"cannot multiply shapes {left} and {right}; both must be matrices and the first's "
            "columns as many as the second's rows (reshape or transpose one of them: x.T)"
        )
    return left[0], right[1]


def _one_dtype(dtypes: tuple[np.dtype[Any], ...]) -> np.dtype[Any]:
    if len(set(dtypes)) > 1:
        raise ModelError(
            f"cannot multiply arrays of {' and '.join(map(str, dtypes))}; must be of one dtype "
            "(convert with astype)"
        )
    return dtypes[0]


@dataclass(frozen=True, slots=True)
class MatMul(Gate):
    """``x_NI @ w_IO`` of matrices and vectors, as numpy's matmul.

    A vector on the left is one row, on the right one column; that axis is missing in the output.
    The gradient of a right factor that all samples share is ``x.T @ d``.
    """

    name: ClassVar[str] = "matmul"
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        left, right = shapes
        if not (len(left) in (1, 2) and len(right) in (1, 2)) or left[-1] != right[0]:
            raise ModelError(
                f"cannot multiply shapes {left} and {right}; must be matrices or vectors, and the "
                "first's columns as many as the second's rows, a vector being a row on the left "
                "and a column on the right (transpose one of them: x.T; write x * y for element by "
                "element, outer(x, y) for all products)"
            )
        return (*left[:-1], *right[1:])

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return _one_dtype(dtypes)

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x_NI, w_IO = _as_matrices(*context.inputs)
        return [stage_product(x_NI, w_IO, context.output.reshape(len(x_NI), w_IO.shape[1]))]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        x_NI, w_IO = _as_matrices(*context.inputs)
        d_NO = grad_or_ones(grad, context).reshape(len(x_NI), w_IO.shape[1])
        if index == 0:
            return [_stage_input_gradient(d_NO, w_IO, out.reshape(x_NI.shape))]
        return [stage_product(x_NI.T, d_NO, out.reshape(w_IO.shape))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        # A vector that has samples has them along the axis that is summed over.
        return per_sample == (True, False) and len(shapes[0]) == 2

    def stage_squared_norms(
        self,
        context: OpContext,
        parameters: frozenset[int],
        grad: Array | None,
        out: Array,
        input_squared_norms: Array | None,
    ) -> list[Operation]:
        assert parameters == {1}
        d_NO = grad_or_ones(grad, context).reshape(len(out), -1)
        return _stage_affine_squared_norms(context, (True, False), d_NO, out, input_squared_norms)


def _as_matrices(left: Array, right: Array) -> tuple[Array, Array]:
    """A vector on the left as one row, on the right as one column; views."""
    return left if left.ndim == 2 else left[None, :], right if right.ndim == 2 else right[:, None]


@dataclass(frozen=True, slots=True)
class Affine(Gate):
    """``x_NI @ w_IO + b_O``, the gate of a dense layer."""

    name: ClassVar[str] = "affine"
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        x, w, b = shapes
        shape = _matrix_product_shape(x, w)
        if b != shape[1:]:
            raise ModelError(
                f"the bias has shape {b}; must be {shape[1:]}, one number for each output"
            )
        return shape

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return _one_dtype(dtypes)

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x_NI, w_IO, b_O = context.inputs
        z_NO = context.output
        return [stage_product(x_NI, w_IO, z_NO), partial(np.add, z_NO, b_O, z_NO)]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        x_NI, w_IO, _ = context.inputs
        d_NO = grad_or_ones(grad, context)
        if index == 0:
            return [_stage_input_gradient(d_NO, w_IO, out)]
        if index == 1:
            return [stage_product(x_NI.T, d_NO, out)]
        if len(d_NO) == 1:
            return [partial(np.copyto, out, d_NO[0])]
        # A product with ones: three times as fast as a sum along the first axis.
        return [partial(np.dot, np.ones(len(d_NO), d_NO.dtype), d_NO, out)]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return per_sample == (True, False, False)

    def stage_squared_norms(
        self,
        context: OpContext,
        parameters: frozenset[int],
        grad: Array | None,
        out: Array,
        input_squared_norms: Array | None,
    ) -> list[Operation]:
        """``(|x_n|² + 1)·|d_n|²``, without the gradients.

        Sample n's weight gradient is the outer product of ``x_n`` and ``d_n``, so its squared norm
        is the product of theirs; its bias gradient is ``d_n``. Source:
        Goodfellow, "Efficient Per-Example Gradient Computations", 2015, arXiv:1510.01799.
        """
        by = (1 in parameters, 2 in parameters)
        d_NO = grad_or_ones(grad, context)
        return _stage_affine_squared_norms(context, by, d_NO, out, input_squared_norms)


def _stage_input_gradient(d_NO: Array, w_IO: Array, out_NI: Array) -> Operation:
    if len(d_NO) == 1:
        return partial(np.dot, w_IO, d_NO[0], out_NI[0])
    return stage_product(d_NO, w_IO.T, out_NI)


def _stage_affine_squared_norms(
    context: OpContext,
    by_weight_and_bias: tuple[bool, bool],
    d_NO: Array,
    out: Array,
    input_squared_norms: Array | None,
) -> list[Operation]:
    x_NI = context.inputs[0]
    by_weight, by_bias = by_weight_and_bias
    operations = stage_row_squared_norms(context, "grad_squares", d_NO, out)
    if not by_weight:
        return operations
    factor_N = input_squared_norms
    if factor_N is None:
        factor_N = context.buffer("input_squared_norms", out.shape)
        operations += stage_row_squared_norms(context, "input_squares", x_NI, factor_N)
    if by_bias:
        factor_and_one_N = context.buffer("factor", out.shape)
        operations.append(partial(np.add, factor_N, constant(1, out.dtype), factor_and_one_N))
        factor_N = factor_and_one_N
    operations.append(partial(np.multiply, out, factor_N, out))
    return operations
