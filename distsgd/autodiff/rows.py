"""Losses as functions: of rows ``[N, O]`` they give ``[N]``, of one row ``[O]`` one number.

Here is said in which ways a class may be told. Shape letters: N samples, O outputs. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distsgd.autodiff.gate import Gate, Shape
from distsgd.autodiff.ops import cross_entropies, losses
from distsgd.autodiff.variable import Operand, Variable, apply, as_variable
from distsgd.errors import ModelError


def map_rows(function: Callable[[Operand], Variable], x: Operand) -> Variable:
    """`function` of rows applied to ``[N, O]``, or to one row ``[O]``."""
    shape = _shape(x)
    if 0 in shape[-1:]:
        raise ModelError(f"a row of shape {shape[-1:]} was given; must hold a number or more")
    if len(shape) != 1:
        return function(x)
    return function(_as_row(x)).reshape(*shape)


def number_loss(gate: Gate, outputs: Operand, target: Operand) -> Variable:
    """The loss of each row, ``[N]``, or one number for one row ``[O]`` or for two numbers."""
    _check_are_floats(gate, outputs)
    shape = _shape(outputs)
    if len(shape) > 1:
        return apply(gate, outputs, target)
    if _shape(target) != shape:
        raise ModelError(
            f"{gate.name} got outputs of shape {shape} and targets of shape {_shape(target)}; both "
            "must be of one shape: a row of outputs, or [samples, outputs]"
        )
    return apply(gate, _as_row(outputs), _as_row(target)).reshape()


def class_loss(gate: Gate, outputs: Operand, target: Operand) -> Variable:
    """The loss of each row, ``[N]``, or one number for one row ``[O]``.

    Args:
        gate: A loss of outputs ``[N, O]`` and classes ``[N]``.
        outputs: ``[N, O]`` or ``[O]``.
        target: Class numbers, ``[N]`` or one; or one-hot rows of the outputs' shape.
    """
    _check_are_floats(gate, outputs)
    shape, given = _shape(outputs), _shape(target)
    if given == shape and len(shape) in (1, 2):
        as_rows = _as_row if len(shape) == 1 else lambda x: x
        return _result(shape, apply(gate, as_rows(outputs), _hot_places(gate, as_rows(target))))
    if given != shape[:-1] or len(shape) not in (1, 2):
        raise ModelError(
            f"{gate.name} got outputs of shape {shape} and targets of shape {given}; must be "
            "[samples, classes] and [samples] (targets are class numbers), or one row and one "
            "class; or targets are one-hot, of the outputs' shape"
        )
    classes = _class_numbers(gate, target)
    if len(shape) == 2:
        return apply(gate, outputs, classes)
    return _result(shape, apply(gate, _as_row(outputs), classes.reshape(1)))


def softmax_cross_entropy(outputs_NO: Operand, class_N: Operand) -> Variable:
    """Cross-entropy of each row's softmax with its class; shape ``[N]``.

    The class is a number from 0 on, or a row of probabilities, as a one-hot row is. Of one row
    ``[O]``, and its class or its probabilities ``[O]``, it is one number.

    >>> float(softmax_cross_entropy([1.0, 2.0, 3.0], 2)).__round__(4)
    0.4076
    >>> float(softmax_cross_entropy([1.0, 2.0, 3.0], [0, 0, 1])).__round__(4)
    0.4076
    """
    shape = _shape(outputs_NO)
    if _shape(class_N) != shape or len(shape) not in (1, 2):
        return class_loss(cross_entropies.SoftmaxCrossEntropy(), outputs_NO, class_N)
    return number_loss(cross_entropies.SoftTargetCrossEntropy(), outputs_NO, class_N)


def sigmoid_cross_entropy(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """Cross-entropy of the sigmoids with the targets, summed by row; shape ``[N]``."""
    return number_loss(cross_entropies.SigmoidCrossEntropy(), outputs_NO, target_NO)


def squared_error(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ (a - t)²`` over a row's outputs; shape ``[N]``."""
    return number_loss(losses.SquaredError(), outputs_NO, target_NO)


def quadratic(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``½ Σ (a - t)²`` over a row's outputs; shape ``[N]``."""
    return number_loss(losses.QuadraticError(), outputs_NO, target_NO)


def cross_entropy(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``-Σ [E ln a + (1 - E) ln(1 - a)]`` over a row's outputs; shape ``[N]``."""
    return number_loss(cross_entropies.CrossEntropy(), outputs_NO, target_NO)


def mean_absolute(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """The mean of ``|a - E|`` over a row's outputs; shape ``[N]``."""
    return number_loss(losses.MeanAbsolute(), outputs_NO, target_NO)


def huber(outputs_NO: Operand, target_NO: Operand, *, delta: float = 1.0) -> Variable:
    """``½ε²`` up to `delta`, straight beyond it, summed over a row's outputs; shape ``[N]``."""
    return number_loss(losses.Huber(delta), outputs_NO, target_NO)


def hinge(outputs_NO: Operand, class_N: Operand) -> Variable:
    """``Σ max(0, a_j - a_c + 1)`` over the classes j other than the row's class c; ``[N]``.

    The class is a number from 0 on, or a one-hot row. Of one row ``[O]`` it is one number.
    """
    return class_loss(losses.Hinge(), outputs_NO, class_N)


def _result(shape: Shape, loss_N: Variable) -> Variable:
    return loss_N.reshape() if len(shape) == 1 else loss_N


def _check_are_floats(gate: Gate, outputs: Operand) -> None:
    if isinstance(outputs, Variable) and outputs.dtype.kind != "f":
        raise ModelError(
            f"{gate.name} got outputs of dtype {outputs.dtype}; must be floats, as a Variable is "
            "unless told otherwise"
        )


def _shape(operand: Operand) -> Shape:
    return operand.shape if isinstance(operand, np.ndarray) else as_variable(operand).shape


def _as_row(operand: Operand) -> Any:
    """``[O]`` as ``[1, O]``, a number as ``[1, 1]``; lists stay lists, of any dtype yet."""
    if isinstance(operand, Variable | np.ndarray):
        return operand.reshape(1, -1)
    return [operand] if np.ndim(operand) else [[operand]]


def _class_numbers(gate: Gate, target: Operand) -> Variable:
    """Class numbers as an int64 constant; a Variable of integers as it is."""
    if isinstance(target, Variable):
        if not np.can_cast(target.dtype, np.int64):
            raise ModelError(
                f"{gate.name} got classes of dtype {target.dtype}; must be whole numbers (make "
                "them a plain array, or Variable(classes, dtype=np.int64))"
            )
        return target
    given = np.asarray(target)
    if given.dtype.kind not in "fiub":
        raise ModelError(
            f"{gate.name} got classes of dtype {given.dtype}; must be whole numbers (number the "
            "classes from 0)"
        )
    broken = ~(given == np.floor(given)) if given.dtype.kind == "f" else np.zeros(given.shape, bool)
    if broken.any():
        raise ModelError(
            f"{gate.name} got the class {given[broken][0]:g}; must be a whole number from 0 on"
        )
    with np.errstate(invalid="ignore"):
        # Beyond int64 no class is; the gate refuses whatever comes of it.
        numbers = given.astype(np.int64)
    return Variable(numbers, watched=False, dtype=np.int64)


def _hot_places(gate: Gate, one_hot_NO: Operand) -> Variable:
    """The class of each one-hot row, for losses that know classes alone."""
    if isinstance(one_hot_NO, Variable):
        raise ModelError(
            f"{gate.name} got one-hot targets as a Variable; must be class numbers, or a plain "
            "array (which nothing is differentiated by)"
        )
    given = np.asarray(one_hot_NO, np.float64)
    if not (((given == 0) | (given == 1)).all() and (given.sum(axis=1) == 1).all()):
        raise ModelError(
            f"{gate.name} got targets of shape {given.shape} that are not one-hot; must have a "
            "single 1 in each row and else zeros, or be class numbers"
        )
    return Variable(given.argmax(axis=1), watched=False, dtype=np.int64)
