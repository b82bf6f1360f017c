"""Gates as functions of variables and arrays, for use under a tape or on their own. No I/O here.

>>> float(sigmoid(0.0))
0.5
"""

from __future__ import annotations

import numpy as np

from distsgd.autodiff import activations, arithmetic, costs, elementwise, linear, losses
from distsgd.autodiff.convolution import Convolution, MaxPool, Padding
from distsgd.autodiff.dropout import Dropout
from distsgd.autodiff.normalisation import LayerNormalisation
from distsgd.autodiff.tape import Operand, Variable, apply


def exp(x: Operand) -> Variable:
    """``exp(x)``."""
    return apply(elementwise.Exp(), x)


def log(x: Operand) -> Variable:
    """The natural logarithm."""
    return apply(elementwise.Log(), x)


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


def matmul(x: Operand, y: Operand) -> Variable:
    """The product of two matrices."""
    return apply(linear.MatMul(), x, y)


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
    """Each place's patch times a kernel ``[rows, columns, C, O]``; see `Convolution`."""
    operands = (x_NHWC, kernel) if bias_O is None else (x_NHWC, kernel, bias_O)
    return apply(Convolution(stride, padding), *operands)


def max_pool(x_NHWC: Operand, size: int) -> Variable:
    """The largest number of each window of `size` x `size`, windows side by side."""
    return apply(MaxPool(size), x_NHWC)


def layer_norm(x: Operand, gain_C: Operand, bias_C: Operand, *, epsilon: float = 1e-5) -> Variable:
    """``x`` with mean 0 and variance 1 along the last axis, times the gain, plus the bias."""
    return apply(LayerNormalisation(epsilon), x, gain_C, bias_C)


def dropout(x: Operand, key_N: Operand, rate: float, *, layer: int = 0) -> Variable:
    """`x` with numbers left out by the rows' keys (uint64), the others larger to make up for it."""
    keys = key_N if isinstance(key_N, Variable) else Variable(key_N, watched=False, dtype=np.uint64)
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
    """Softmax of each row."""
    return apply(activations.Softmax(), x_NO)


def _classes(class_N: Operand) -> Variable:
    if isinstance(class_N, Variable):
        return class_N
    return Variable(class_N, watched=False, dtype=np.int64)


def softmax_cross_entropy(outputs_NO: Operand, class_N: Operand) -> Variable:
    """Cross-entropy of each row's softmax with its class; shape ``[N]``."""
    return apply(losses.SoftmaxCrossEntropy(), outputs_NO, _classes(class_N))


def sigmoid_cross_entropy(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """Cross-entropy of the sigmoids with the targets, summed by row; shape ``[N]``."""
    return apply(losses.SigmoidCrossEntropy(), outputs_NO, target_NO)


def squared_error(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ (a - t)²`` over a row's outputs; shape ``[N]``."""
    return apply(losses.SquaredError(1.0), outputs_NO, target_NO)


def quadratic(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``½ Σ (a - t)²`` over a row's outputs; shape ``[N]``."""
    return apply(losses.SquaredError(0.5), outputs_NO, target_NO)


def cross_entropy(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``-Σ [E ln a + (1 - E) ln(1 - a)]`` over a row's outputs; shape ``[N]``."""
    return apply(costs.CrossEntropy(), outputs_NO, target_NO)


def exponential(outputs_NO: Operand, target_NO: Operand, *, tau: float = 1.0) -> Variable:
    """``tau · exp(Σ (a - E)² / tau)``, the sum over a row's outputs; shape ``[N]``."""
    return apply(costs.Exponential(tau), outputs_NO, target_NO)


def hellinger(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ (√a - √E)² / √2`` over a row's outputs; shape ``[N]``."""
    return apply(costs.Hellinger(), outputs_NO, target_NO)


def kullback_leibler(
    outputs_NO: Operand, target_NO: Operand, *, generalised: bool = False
) -> Variable:
    """``Σ E ln(E/a)``, generalised ``Σ [E ln(E/a) - E + a]``; shape ``[N]``."""
    return apply(costs.KullbackLeibler(generalised), outputs_NO, target_NO)


def itakura_saito(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ [E/a - ln(E/a) - 1]`` over a row's outputs; shape ``[N]``."""
    return apply(costs.ItakuraSaito(), outputs_NO, target_NO)


def mean_absolute(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """The mean of ``|a - E|`` over a row's outputs; shape ``[N]``."""
    return apply(costs.MeanAbsolute(), outputs_NO, target_NO)


def huber(outputs_NO: Operand, target_NO: Operand, *, delta: float = 1.0) -> Variable:
    """``½ε²`` up to `delta`, straight beyond it, summed over a row's outputs; shape ``[N]``."""
    return apply(costs.Huber(delta), outputs_NO, target_NO)


def hinge(outputs_NO: Operand, class_N: Operand) -> Variable:
    """``Σ max(0, a_j - a_c + 1)`` over the classes j other than the row's class c; ``[N]``."""
    return apply(costs.Hinge(), outputs_NO, _classes(class_N))
