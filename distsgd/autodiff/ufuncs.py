"""Which gate stands for which function of numpy: ``np.exp(x)`` of a variable is on the tape.

No I/O here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distsgd.autodiff import activations, arithmetic, elementwise
from distsgd.autodiff.gate import Gate
from distsgd.autodiff.linear import MatMul
from distsgd.errors import ModelError

GATES: dict[np.ufunc, Gate] = {
    np.add: arithmetic.Add(),
    np.subtract: arithmetic.Subtract(),
    np.multiply: arithmetic.Multiply(),
    np.divide: arithmetic.Divide(),
    np.maximum: arithmetic.Maximum(),
    np.matmul: MatMul(),
    np.negative: elementwise.Negative(),
    np.absolute: elementwise.Absolute(),
    np.exp: elementwise.Exp(),
    np.log: elementwise.Log(),
    np.sin: elementwise.Sin(),
    np.cos: elementwise.Cos(),
    np.reciprocal: elementwise.Reciprocal(),
    np.square: elementwise.Power(2.0),
    np.sqrt: elementwise.Power(0.5),
    np.tanh: activations.Tanh(),
}

# What they say has no gradient: they answer with plain arrays.
QUESTIONS = frozenset(
    {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
    | {np.isnan, np.isfinite, np.isinf}
)


def refusal(function: Any) -> ModelError:
    """For a function of numpy that a tape would not see."""
    return ModelError(
        f"numpy's {function.__name__} got a Variable, and a tape would not see it; use what "
        "distsgd.autodiff has (from distsgd.autodiff import ...), or x.value where no gradient is "
        "wanted"
    )
