"""A gradient checker: any function that returns a loss and its gradient, in float64.

No I/O here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distsgd.autodiff.gate import shown
from distsgd.autodiff.variable import Variable
from distsgd.errors import ModelError

LossAndGradient = Callable[[NDArray[np.float64]], tuple[ArrayLike, ArrayLike]]


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
    function: LossAndGradient,
    x: ArrayLike,
    *,
    step: float = 1e-4,
    tolerance: float = 1e-5,
    generator: np.random.Generator | None = None,
) -> GradientCheck:
    """Compares a function's gradient with ``(f(x + h) - f(x - h)) / 2h``, number by number.

    Chance is the same in each call: the states of Python's `random`, of `numpy.random` and of
    `generator` are restored before it, and once more at the end, so that a check leaves no trace.
    Raises `ModelError` where the function gives something else than a loss and a gradient.

    Args:
        function: From an array like `x`, float64, to the loss (one number) and its gradient (the
            shape of `x`).
        x: Where to check; not changed. Integers are taken as float64.
        step: The h of the differences.
        tolerance: Largest relative difference that passes.
        generator: Chance the function uses besides the global ones.

    >>> check_gradient(lambda x: (x**2, 2 * x), 123.456).passed
    True
    """
    if not callable(function):
        raise ModelError(
            f"the function is {shown(function)}; must be callable, from x to a loss and a gradient"
        )
    point = np.array(Variable(x).value, np.float64)
    _check_settings(step, tolerance)
    with _same_chance(generator) as restore:

        def call(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            restore()
            return _loss_and_gradient(function(at.copy()))

        return _check(call, point, step, tolerance)


def _check(
    call: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    point: NDArray[np.float64],
    step: float,
    tolerance: float,
) -> GradientCheck:
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
        losses = []
        for sign in (1.0, -1.0):
            moved = point.copy()
            moved[index] += sign * step
            losses.append(call(moved)[0])
        found = _compare(
            index, (losses[0] - losses[1]) / (2.0 * step), float(gradient[index]), tolerance
        )
        if not found.passed:
            return found
        if found.relative_difference > worst.relative_difference:
            worst = found
    return worst


def assert_gradient(
    function: LossAndGradient,
    x: ArrayLike,
    *,
    step: float = 1e-4,
    tolerance: float = 1e-5,
    generator: np.random.Generator | None = None,
) -> None:
    """Raises `ModelError` with the first bad index and both values, unless all is well.

    Args:
        function: As for `check_gradient`, and so are the others.
        x: Where; of any shape.
        step: The h of the central difference.
        tolerance: Largest relative difference.
        generator: What `function` draws from, put back before each call.
    """
    found = check_gradient(function, x, step=step, tolerance=tolerance, generator=generator)
    if not found.passed:
        raise ModelError(
            f"the gradient at index {found.index} is {found.analytical!r}, central differences "
            f"say {found.numerical!r}; "
            f"their relative difference {found.relative_difference:.3g} must be at most "
            f"{tolerance:g}"
        )


@contextmanager
def _same_chance(generator: np.random.Generator | None) -> Iterator[Callable[[], None]]:
    """Gives what puts all chance back to where it is now; it is done at the end in any case."""
    pythons = random.getstate()
    # The function is the user's, and so may be the old global generator of numpy.
    numpys: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    own = None if generator is None else generator.bit_generator.state

    def restore() -> None:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002
        if generator is not None and own is not None:
            generator.bit_generator.state = own

    try:
        yield restore
    finally:
        restore()


def _check_settings(step: float, tolerance: float) -> None:
    for name, value in (("step", step), ("tolerance", tolerance)):
        if not isinstance(value, Real) or not 0.0 < float(value) < np.inf:
            raise ModelError(f"{name} is {value!r}; must be a number above 0")


def _loss_and_gradient(answer: Any) -> tuple[float, NDArray[np.float64]]:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise ModelError(
            f"the function gave {type(answer).__name__}; must give a loss and its gradient "
            "(return loss, tape.gradient(loss, x))"
        )
    loss, gradient = answer
    if gradient is None:
        raise ModelError(
            "the gradient is None; must be an array (the loss does not depend on a Variable that "
            "the tape watches)"
        )
    return _one_number(loss), np.asarray(Variable(gradient).value, np.float64)


def _one_number(loss: ArrayLike) -> float:
    array = np.asarray(Variable(loss).value, np.float64)
    if array.size != 1:
        raise ModelError(f"the loss has shape {array.shape}; must be one number (sum it)")
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
