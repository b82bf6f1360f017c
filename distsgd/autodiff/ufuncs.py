"""Which gate stands for which function of numpy: ``np.exp(x)`` of a variable is on the tape.

So is ``np.sum(x)``, for which `distsgd.autodiff.functions` enters what it has.

No I/O here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from distsgd.autodiff.gate import Gate
from distsgd.autodiff.ops import activations, arithmetic, elementwise
from distsgd.autodiff.ops.linear import MatMul
from distsgd.errors import ModelError

GATES: dict[np.ufunc, Gate] = {
    np.add: arithmetic.Add(),
    np.subtract: arithmetic.Subtract(),
    np.multiply: arithmetic.Multiply(),
    np.divide: arithmetic.Divide(),
    np.maximum: arithmetic.Maximum(),
    np.minimum: arithmetic.Minimum(),
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

# Functions that are no ufuncs, and what stands for them; with numpy's names of the arguments.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}

# What they say has no gradient, or one that is 0: they answer with plain arrays.
QUESTIONS: frozenset[Any] = frozenset(
    {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
    | {np.isnan, np.isfinite, np.isinf, np.sign, np.floor, np.ceil, np.rint}
    | {np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.any, np.all}
    | {np.isclose, np.allclose, np.array_equal, np.zeros_like, np.ones_like, np.empty_like}
    | {np.full_like, np.count_nonzero, np.array_repr, np.array_str, np.array2string}
)


def with_gates(function: Any, inputs: Any, settings: Any) -> Any:
    """What stands for `function`; refused where it has not all of numpy's arguments."""
    ours = FUNCTIONS[function]
    try:
        inspect.signature(ours).bind(*inputs, **settings)
    except TypeError as error:
        raise ModelError(
            f"numpy's {function.__name__} got a Variable, for which it stands for "
            f"distsgd.autodiff.{ours.__name__}, which does not take all of that ({error}); leave "
            "it out, or use x.value where no gradient is wanted"
        ) from None
    return ours(*inputs, **settings)


def refusal(function: Any) -> ModelError:
    """For a function of numpy that a tape would not see."""
    return ModelError(
        f"numpy's {function.__name__} got a Variable, and a tape would not see it; use what "
        "distsgd.autodiff has (from distsgd.autodiff import ...), or x.value where no gradient is "
        "wanted"
    )
