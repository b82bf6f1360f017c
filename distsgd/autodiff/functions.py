"""Gates as functions of variables and arrays, for use under a tape or on their own. No I/O here.

>>> float(sigmoid(0.0))
0.5
"""

from __future__ import annotations

import numpy as np

from distsgd.autodiff import activations, arithmetic, elementwise, linear, losses
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


def softmax_cross_entropy(outputs_NO: Operand, class_N: Operand) -> Variable:
    """Cross-entropy of each row's softmax with its class; shape ``[N]``."""
    classes = (
        class_N
        if isinstance(class_N, Variable)
        else Variable(class_N, watched=False, dtype=np.int64)
    )
    return apply(losses.SoftmaxCrossEntropy(), outputs_NO, classes)


def sigmoid_cross_entropy(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """Cross-entropy of the sigmoids with the targets, summed by row; shape ``[N]``."""
    return apply(losses.SigmoidCrossEntropy(), outputs_NO, target_NO)


def squared_error(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ (a - t)²`` over a row's outputs; shape ``[N]``."""
    return apply(losses.SquaredError(1.0), outputs_NO, target_NO)


def quadratic(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``½ Σ (a - t)²`` over a row's outputs; shape ``[N]``."""
    return apply(losses.SquaredError(0.5), outputs_NO, target_NO)
