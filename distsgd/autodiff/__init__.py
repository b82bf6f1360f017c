"""Differentiation: gates, the tape that records them, programs, a gradient checker, drawings."""

from distsgd.autodiff.bound import BoundProgram, LayerReading
from distsgd.autodiff.check import GradientCheck, assert_gradient, check_gradient
from distsgd.autodiff.drawing import draw_text
from distsgd.autodiff.drawing_svg import draw_svg
from distsgd.autodiff.program import Program
from distsgd.autodiff.slope import Slope, slope_at
from distsgd.autodiff.tape import GradientTape, Variable, apply

__all__ = [
    "BoundProgram",
    "GradientCheck",
    "GradientTape",
    "LayerReading",
    "Program",
    "Slope",
    "Variable",
    "apply",
    "assert_gradient",
    "check_gradient",
    "draw_svg",
    "draw_text",
    "slope_at",
]
