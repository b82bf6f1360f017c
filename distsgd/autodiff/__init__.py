"""Differentiation: gates, the tape that records them, programs, a gradient checker.

Drawings of circuits, the slope at a point and the losses of lessons are in `distsgd.lessons`; their
old names here are found for one release more, with a `FutureWarning`.
"""

import importlib
import warnings
from typing import Any

from distsgd.autodiff.bound import BoundProgram, LayerReading
from distsgd.autodiff.check import GradientCheck, assert_gradient, check_gradient
from distsgd.autodiff.functions import (
    absolute,
    add,
    affine,
    clip,
    concatenate,
    convolution,
    cos,
    divide,
    dot,
    dropout,
    exp,
    layer_norm,
    log,
    matmul,
    max,  # noqa: A004 -- numpy's name; so are min and sum.
    max_pool,
    maximum,
    mean,
    min,  # noqa: A004
    minimum,
    multiply,
    negative,
    outer,
    power,
    reciprocal,
    relu,
    reshape,
    sigmoid,
    sin,
    softmax,
    sqrt,
    square,
    stack,
    subtract,
    sum,  # noqa: A004
    tanh,
    transpose,
    where,
)
from distsgd.autodiff.gate import Gate, OpContext, grad_or_ones
from distsgd.autodiff.ops.elementwise import Elementwise
from distsgd.autodiff.program import Program
from distsgd.autodiff.rows import (
    cross_entropy,
    hinge,
    huber,
    mean_absolute,
    quadratic,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)
from distsgd.autodiff.tape import GradientTape, Variable, apply

__all__ = [
    "BoundProgram",
    "Elementwise",
    "Gate",
    "GradientCheck",
    "GradientTape",
    "LayerReading",
    "OpContext",
    "Program",
    "Variable",
    "absolute",
    "add",
    "affine",
    "apply",
    "assert_gradient",
    "check_gradient",
    "clip",
    "concatenate",
    "convolution",
    "cos",
    "cross_entropy",
    "divide",
    "dot",
    "dropout",
    "exp",
    "grad_or_ones",
    "hinge",
    "huber",
    "layer_norm",
    "log",
    "matmul",
    "max",
    "max_pool",
    "maximum",
    "mean",
    "mean_absolute",
    "min",
    "minimum",
    "multiply",
    "negative",
    "outer",
    "power",
    "quadratic",
    "reciprocal",
    "relu",
    "reshape",
    "sigmoid",
    "sigmoid_cross_entropy",
    "sin",
    "softmax",
    "softmax_cross_entropy",
    "sqrt",
    "square",
    "squared_error",
    "stack",
    "subtract",
    "sum",
    "tanh",
    "transpose",
    "where",
]

_MOVED = {
    "Slope": "distsgd.lessons",
    "draw_svg": "distsgd.lessons",
    "draw_text": "distsgd.lessons",
    "exponential": "distsgd.lessons.losses",
    "hellinger": "distsgd.lessons.losses",
    "itakura_saito": "distsgd.lessons.losses",
    "kullback_leibler": "distsgd.lessons.losses",
    "slope_at": "distsgd.lessons",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _MOVED[name]
    note = f"distsgd.autodiff.{name} is now {home}.{name}; the old name goes with the next release"
    warnings.warn(note, FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(home), name)
