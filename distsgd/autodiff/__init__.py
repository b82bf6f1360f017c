"""Differentiation: gates, the tape that records them, programs, a gradient checker."""

from distsgd.autodiff.check import GradientCheck, assert_gradient, check_gradient
from distsgd.autodiff.program import BoundProgram, Program
from distsgd.autodiff.tape import GradientTape, Variable, apply

__all__ = [
    "BoundProgram",
    "GradientCheck",
    "GradientTape",
    "Program",
    "Variable",
    "apply",
    "assert_gradient",
    "check_gradient",
]
