"""Gates as functions of variables and arrays, for use under a tape or on their own. No I/O here.

Losses are in `distsgd.autodiff.rows`.

>>> float(sigmoid(0.0))
0.5
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from distsgd.autodiff.operators import FUNCTIONS, Axis
from distsgd.autodiff.ops import activations, arithmetic, elementwise, linear, shapes
from distsgd.autodiff.ops.convolution import Convolution, MaxPool, Padding
from distsgd.autodiff.ops.dropout import Dropout
from distsgd.autodiff.ops.normalisation import LayerNormalisation
from distsgd.autodiff.rows import map_rows
from distsgd.autodiff.variable import Operand, Variable, apply, as_variable
from distsgd.errors import ModelError


def add(x: Operand, y: Operand) -> Variable:
    """``x + y``."""
    return apply(arithmetic.Add(), x, y)


def subtract(x: Operand, y: Operand) -> Variable:
    """``x - y``."""
    return apply(arithmetic.Subtract(), x, y)


def multiply(x: Operand, y: Operand) -> Variable:
    """``x · y``, element by element."""
    return apply(arithmetic.Multiply(), x, y)


def divide(x: Operand, y: Operand) -> Variable:
    """``x / y``, element by element."""
    return apply(arithmetic.Divide(), x, y)


def negative(x: Operand) -> Variable:
    """``-x``."""
    return apply(elementwise.Negative(), x)


def power(x: Operand, exponent: Operand) -> Variable:
    """``x ** exponent``; both may be Variables, and the gradient by either is given."""
    return as_variable(x) ** exponent


def square(x: Operand) -> Variable:
    """``x²``."""
    return power(x, 2.0)


def exp(x: Operand) -> Variable:
    """``exp(x)``."""
    return apply(elementwise.Exp(), x)


def log(x: Operand) -> Variable:
    """The natural logarithm."""
    return apply(elementwise.Log(), x)


def sin(x: Operand) -> Variable:
    """The sine, of radians."""
    return apply(elementwise.Sin(), x)


def cos(x: Operand) -> Variable:
    """The cosine, of radians."""
    return apply(elementwise.Cos(), x)


def reciprocal(x: Operand) -> Variable:
    """``1 / x``."""
    return apply(elementwise.Reciprocal(), x)


def sqrt(x: Operand) -> Variable:
    """The square root."""
    return apply(elementwise.Power(0.5), x)


def absolute(x: Operand) -> Variable:
    """``|x|``."""
    return apply(elementwise.Absolute(), x)


def maximum(x: Operand, y: Operand) -> Variable:
    """The larger of two, element by element; where they are equal the gradient goes to `x`."""
    return apply(arithmetic.Maximum(), x, y)


def minimum(x: Operand, y: Operand) -> Variable:
    """The smaller of two, element by element; where they are equal the gradient goes to `x`."""
    return apply(arithmetic.Minimum(), x, y)


def clip(x: Operand, lowest: Operand, highest: Operand) -> Variable:
    """``x`` cut to lie from `lowest` to `highest`; at the ends the gradient still goes to `x`."""
    return minimum(maximum(x, lowest), highest)


def where(condition: ArrayLike, x: Operand, y: Operand) -> Variable:
    """`x` where `condition` holds, else `y`, element by element; the gradient goes the same way.

    >>> where([True, False], [1.0, 2.0], 0.0).value
    array([1., 0.])
    """
    holds = np.asarray(condition)
    if holds.dtype.kind != "b":
        raise ModelError(
            f"the condition of where is of dtype {holds.dtype}; must be booleans (write x > 0)"
        )
    return apply(arithmetic.Where(), Variable(holds, watched=False, dtype=np.bool_), x, y)


def sum(x: Operand, axis: Axis = None, *, keepdims: bool = False) -> Variable:  # noqa: A001 -- numpy's name.
    """The sum along `axis`, one or several, or of everything.

    With `keepdims` the axes that are gone stay, with length 1.
    """
    return as_variable(x).sum(axis, keepdims=keepdims)


def mean(x: Operand, axis: Axis = None, *, keepdims: bool = False) -> Variable:
    """The mean, as `sum`."""
    return as_variable(x).mean(axis, keepdims=keepdims)


def max(x: Operand, axis: Axis = None, *, keepdims: bool = False) -> Variable:  # noqa: A001 -- numpy's name.
    """The largest, as `sum`; where several are equal they share the gradient."""
    return as_variable(x).max(axis, keepdims=keepdims)


def min(x: Operand, axis: Axis = None, *, keepdims: bool = False) -> Variable:  # noqa: A001 -- numpy's name.
    """The smallest, as `sum`; where several are equal they share the gradient."""
    return as_variable(x).min(axis, keepdims=keepdims)


def reshape(x: Operand, shape: int | tuple[int, ...]) -> Variable:
    """The same numbers in another shape; one size may be -1."""
    return as_variable(x).reshape(shape)


def transpose(x: Operand, axes: tuple[int, ...] | None = None) -> Variable:
    """The axes in another order; the opposite one unless given."""
    return as_variable(x).transpose() if axes is None else as_variable(x).transpose(axes)


def stack(parts: Sequence[Operand]) -> Variable:
    """Variables or arrays of one shape put side by side along a new first axis.

    >>> x, y = Variable(1.0), Variable(2.0)
    >>> stack([x, y, 3.0]).value
    array([1., 2., 3.])
    """
    if not isinstance(parts, Sequence | Variable | np.ndarray):
        raise ModelError(f"stack got {parts!r}; must be a list of Variables or arrays")
    return apply(shapes.Stack(), *parts)


def concatenate(parts: Sequence[Operand], axis: int = 0) -> Variable:
    """Variables or arrays put one behind the other along an axis that they have.

    >>> concatenate([Variable([1.0, 2.0]), [3.0]]).value
    array([1., 2., 3.])
    """
    if not isinstance(parts, Sequence | Variable | np.ndarray):
        raise ModelError(f"concatenate got {parts!r}; must be a list of Variables or arrays")
    return apply(shapes.Concatenate(*shapes.as_sizes("axis", (axis,))), *parts)


def matmul(x: Operand, y: Operand) -> Variable:
    """The product of matrices and vectors, as numpy's.

    A vector is a row on the left and a column on the right; that axis is missing in the output.

    >>> matmul([[1.0, 2.0], [3.0, 4.0]], [10.0, 1.0]).value
    array([12., 34.])
    """
    return apply(linear.MatMul(), x, y)


def dot(x: Operand, y: Operand) -> Variable:
    """As `matmul`; times a number it is the product with each, as numpy's."""
    x, y = as_variable(x), as_variable(y)
    return matmul(x, y) if x.ndim and y.ndim else multiply(x, y)


def outer(x: Operand, y: Operand) -> Variable:
    """Each number of `x` times each of `y`, ``[I, O]``; arrays are taken flat, as by numpy."""
    return multiply(reshape(x, (-1, 1)), reshape(y, (1, -1)))


def affine(x_NI: Operand, weight_IO: Operand, bias_O: Operand) -> Variable:
    """``x @ weight + bias`` as one gate."""
    return apply(linear.Affine(), x_NI, weight_IO, bias_O)


def convolution(
    x_NHWC: Operand,
    kernel: Operand,
    bias_O: Operand | None = None,
    *,
    stride: int = 1,
    padding: Padding = "valid",
) -> Variable:
    """Each place's patch of an image times a kernel, as one gate.

    Args:
        x_NHWC: Images: samples, rows, columns, channels.
        kernel: ``[rows, columns, C, O]``.
        bias_O: Added at each place, where given.
        stride: Pixels from one place to the next, 1 or more.
        padding: "valid": places inside the image only; "same": zeros around it.

    Returns:
        ``[N, places down, places across, O]``.

    Raises:
        ModelError: Shapes do not fit, or the kernel is larger than the image.
    """
    operands = (x_NHWC, kernel) if bias_O is None else (x_NHWC, kernel, bias_O)
    return apply(Convolution(stride, padding), *operands)


def max_pool(x_NHWC: Operand, size: int) -> Variable:
    """The largest number of each window of `size` x `size`, windows side by side."""
    return apply(MaxPool(size), x_NHWC)


def layer_norm(x: Operand, gain_C: Operand, bias_C: Operand, *, epsilon: float = 1e-5) -> Variable:
    """``x`` with mean 0 and variance 1 along the last axis, times the gain, plus the bias.

    Args:
        x: ``[N, ..., C]``, two axes or more.
        gain_C: One number for each of the last axis.
        bias_C: The same.
        epsilon: Added to the variance, so that its root can be divided by.

    Returns:
        The shape and dtype of `x`.
    """
    return apply(LayerNormalisation(epsilon), x, gain_C, bias_C)


def dropout(x: Operand, key_N: Operand, rate: float, *, layer: int = 0) -> Variable:
    """`x` with numbers left out by the rows' keys, the others larger to make up for it.

    Args:
        x: ``[N, ...]``.
        key_N: A whole number for each row, taken as uint64; the same keys leave the same out.
        rate: Share left out, at least 0 and below 1.
        layer: Number of the layer: others leave out others for the same keys.

    Raises:
        ModelError: Keys are no whole numbers, or not one for each row.
    """
    keys = key_N
    if not isinstance(key_N, Variable):
        given = np.asarray(key_N)
        if given.dtype.kind not in "iu":
            raise ModelError(
                f"dropout got keys of dtype {given.dtype}; must be whole numbers, one for each row"
            )
        keys = Variable(given, watched=False, dtype=np.uint64)
    return apply(Dropout(rate, layer), x, keys)


def relu(x: Operand) -> Variable:
    """``max(x, 0)``."""
    return apply(activations.Relu(), x)


def sigmoid(x: Operand) -> Variable:
    """``1 / (1 + exp(-x))`` as one gate."""
    return apply(activations.Sigmoid(), x)


def tanh(x: Operand) -> Variable:
    """The hyperbolic tangent."""
    return apply(activations.Tanh(), x)


def softmax(x_NO: Operand) -> Variable:
    """Softmax of each row, or of one row ``[O]``."""
    return map_rows(lambda rows_NO: apply(activations.Softmax(), rows_NO), x_NO)


# What stands for numpy's functions that are no ufuncs: `Variable` looks them up.
FUNCTIONS |= {
    np.sum: sum,
    np.mean: mean,
    np.max: max,
    np.amax: max,
    np.min: min,
    np.amin: min,
    np.clip: clip,
    np.where: where,
    np.reshape: reshape,
    np.transpose: transpose,
    np.stack: stack,
    np.concatenate: concatenate,
    np.dot: dot,
    np.outer: outer,
}
