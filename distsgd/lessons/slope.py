"""The gradient read as a direction and a steepness. No I/O here.

>>> here = slope_at(lambda x: (x**2).sum(), [-2.0, 4.0])
>>> here.gradient.tolist(), here.step.tolist(), round(here.steepness, 3)
([-4.0, 8.0], [4.0, -8.0], 8.944)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from distsgd.autodiff.gate import shown
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A function at a point.

    Attributes:
        point: Where.
        value: The function's.
        gradient: Points where it rises fastest; the shape of the point.
        step: Minus the gradient: gradient descent with a learning rate of 1.
        direction: The gradient with length 1; zeros where it is flat.
        steepness: Length of the gradient: the rise for a small step in its direction, by the step's
            length.
    """

    point: Array
    value: float
    gradient: Array
    step: Array
    direction: Array
    steepness: float


def slope_at(function: Callable[[Variable], Variable], point: ArrayLike) -> Slope:
    """How `function`, from one variable to one number, rises at `point`.

    Raises `ModelError` unless it gives one number, as a Variable.

    >>> slope_at(lambda x: x[0] ** 2 + 3.0 * x[1], [1.0, 5.0]).gradient.tolist()
    [2.0, 3.0]
    """
    if not callable(function):
        raise ModelError(
            f"the function is {shown(function)}; must be callable (write lambda x: ...)"
        )
    x = Variable(np.array(Variable(point).value, np.float64))
    with GradientTape() as tape:
        value = function(x)
    if not isinstance(value, Variable):
        raise ModelError(
            f"the function gave {type(value).__name__}; must give a Variable (functions of numpy "
            "and math give plain numbers: use those of distsgd.autodiff)"
        )
    if value.value.size != 1:
        raise ModelError(f"the function has shape {value.shape}; must be one number (sum it)")
    gradient = tape.gradient(value, x)
    gradient = np.zeros(x.shape) if gradient is None else gradient
    steepness = float(np.sqrt(np.sum(gradient * gradient)))
    direction = gradient / steepness if steepness else np.zeros_like(gradient)
    return Slope(
        point=x.value,
        value=float(value.value.reshape(())),
        gradient=gradient,
        step=-gradient,
        direction=direction,
        steepness=steepness,
    )
