"""A gradient checker: any function that returns a cost and its gradient, in float64.

No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distsgd.errors import ModelError

CostAndGradient = Callable[[NDArray[np.float64]], tuple[ArrayLike, ArrayLike]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCheck:
    """What a check found; at the first bad index, or at the worst one where none is bad.

    Attributes:
        passed: Whether every relative difference is within the tolerance.
        index: Where; an empty tuple for a function of one number.
        numerical: Central difference there.
        analytical: The function's own gradient there.
        relative_difference: ``|n - g| / max(1, |n|, |g|)``.
    """

    passed: bool
    index: tuple[int, ...]
    numerical: float
    analytical: float
    relative_difference: float


def check_gradient(
    function: CostAndGradient,
    x: ArrayLike,
    *,
    step: float = 1e-4,
    tolerance: float = 1e-5,
    generator: np.random.Generator | None = None,
) -> GradientCheck:
    """Compares a function's gradient with ``(f(x + h) - f(x - h)) / 2h``, number by number.

    Args:
        function: From an array like `x`, float64, to the cost (one number) and its gradient (the
            shape of `x`).
        x: Where to check; not changed. Integers are taken as float64.
        step: The h of the differences.
        tolerance: Largest relative difference that passes.
        generator: Chance the function uses; its state is restored before each call, so that each
            sees the same.

    >>> check_gradient(lambda x: (x**2, 2 * x), 123.456).passed
    True
    """
    point = np.array(x, np.float64)
    state = None if generator is None else dict(generator.bit_generator.state)

    def call(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        if generator is not None and state is not None:
            generator.bit_generator.state = state
        cost, gradient = function(at.copy())
        return _one_number(cost), np.asarray(gradient, np.float64)

    _, gradient = call(point)
    if gradient.shape != point.shape:
        raise ModelError(
            f"the gradient has shape {gradient.shape}; must be {point.shape}, as the array it "
            "belongs to"
        )
    worst = GradientCheck(
        passed=True, index=(), numerical=0.0, analytical=0.0, relative_difference=-1.0
    )
    for index in np.ndindex(point.shape):
        costs = []
        for sign in (1.0, -1.0):
            moved = point.copy()
            moved[index] += sign * step
            costs.append(call(moved)[0])
        found = _compare(
            index, (costs[0] - costs[1]) / (2.0 * step), float(gradient[index]), tolerance
        )
        if not found.passed:
            return found
        if found.relative_difference > worst.relative_difference:
            worst = found
    return worst


def assert_gradient(
    function: CostAndGradient,
    x: ArrayLike,
    *,
    step: float = 1e-4,
    tolerance: float = 1e-5,
    generator: np.random.Generator | None = None,
) -> None:
    """Raises `ModelError` with the first bad index and both values, unless all is well."""
    found = check_gradient(function, x, step=step, tolerance=tolerance, generator=generator)
    if not found.passed:
        raise ModelError(
            f"the gradient at index {found.index} is {found.analytical!r}, central differences "
            f"say {found.numerical!r}; "
            f"their relative difference {found.relative_difference:.3g} must be at most "
            f"{tolerance:g}"
        )


def _one_number(cost: ArrayLike) -> float:
    array = np.asarray(cost, np.float64)
    if array.size != 1:
        raise ModelError(f"the cost has shape {array.shape}; must be one number (sum it)")
    return float(array.reshape(()))


def _compare(
    index: tuple[int, ...], numerical: float, analytical: float, tolerance: float
) -> GradientCheck:
    difference = abs(numerical - analytical) / max(1.0, abs(numerical), abs(analytical))
    # Written so that not-a-number fails.
    passed = difference <= tolerance
    return GradientCheck(
        passed=passed,
        index=index,
        numerical=numerical,
        analytical=analytical,
        relative_difference=difference,
    )
