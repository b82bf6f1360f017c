"""Formulas: the bits of the same ufuncs called by hand, in as little memory as they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from distsgd.autodiff import Elementwise, GradientTape, OpContext, Variable, apply, check_gradient
from distsgd.autodiff.ops.elementwise import stage_formula
from distsgd.base.arrays import Array

X = np.linspace(-3.0, 3.0, 101).astype(np.float32)
D = np.linspace(0.5, 2.0, 101).astype(np.float32)


class Buffers:
    """Counts what a context allocates."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> Array:
        self.shapes.append(shape)
        return np.full(shape, -7, dtype)


def run(
    formula: Callable[..., Any], out: Array, settings: object = None, **arrays: Array
) -> tuple[Array, int]:
    """What a formula wrote into `out`, run twice, and how many buffers it took."""
    buffers = Buffers()
    context = OpContext((), out, buffers)
    given = {name: array.copy() for name, array in arrays.items()}
    for _ in range(2):
        for name, array in arrays.items():
            array[...] = given[name]
        for operation in stage_formula(formula, context, out, arrays=arrays, settings=settings):
            operation()
    return out, len(buffers.shapes)


FORMULAS: list[tuple[Callable[..., Any], Array, int]] = [
    (lambda d, x: d * np.cos(x), D * np.cos(X), 0),
    (lambda d, x: d * -(x * x), D * -(X * X), 0),
    (lambda d, x: 1 - d / (x + 4), 1 - D / (X + 4), 0),
    (lambda d, x: d * (x > 0), D * (X > 0), 1),
    (lambda d, x: (d + x) * (d - x), (D + X) * (D - X), 1),
    (lambda d: d, D, 0),
    (lambda x: np.square(x), np.square(X), 0),  # noqa: PLW0108 -- a formula, not the ufunc.
    (np.square, np.square(X), 0),
]


@pytest.mark.parametrize(("formula", "wanted", "num_buffers"), FORMULAS)
def test_formula_has_the_bits_of_its_ufuncs_and_few_buffers(
    formula: Callable[..., Any], wanted: Array, num_buffers: int
) -> None:
    got, taken = run(formula, np.empty_like(X), d=D.copy(), x=X.copy())
    assert got.dtype == np.float32
    assert got.tobytes() == wanted.astype(np.float32).tobytes()
    assert taken == num_buffers


@pytest.mark.parametrize(("formula", "wanted", "num_buffers"), FORMULAS)
@pytest.mark.parametrize("shared", ["d", "x"])
def test_formula_may_write_where_one_of_its_arrays_lies(
    formula: Callable[..., Any], wanted: Array, num_buffers: int, shared: str
) -> None:
    arrays = {"d": D.copy(), "x": X.copy()}
    got, taken = run(formula, arrays[shared], **arrays)
    assert got.tobytes() == wanted.astype(np.float32).tobytes()
    assert num_buffers <= taken <= num_buffers + 1


def test_formula_of_a_plain_number_fills() -> None:
    got, _ = run(lambda d: 0, np.empty_like(X), d=D.copy())  # noqa: ARG005 -- reads nothing.
    assert not got.any()


@dataclass(frozen=True, slots=True)
class Scaled(
    Elementwise,
    value=lambda x, factor: factor * np.sin(x),
    gradient=lambda d, x, factor: d * (factor * np.cos(x)),
):
    """``factor · sin(x)``."""

    factor: float


class Product(
    Elementwise,
    keep=lambda a, b: a - b,
    value=lambda a, b, kept: a * b * kept,
    gradient=(
        lambda d, a, b, kept: d * (b * kept + a * b),
        lambda d, a, b, kept: d * a * (kept - b),
    ),
):
    """``a · b · (a - b)``."""


def test_own_gate_is_two_formulas() -> None:
    assert (Scaled(2.0), Scaled.name) == (Scaled(factor=2.0), "scaled")
    assert repr(Scaled(2.0)) == "Scaled(factor=2.0)"

    def loss_and_gradient(x: Array) -> tuple[Variable, Any]:
        given = Variable(x)
        with GradientTape() as tape:
            loss = (apply(Scaled(2.0), given) ** 2).sum()
        return loss, tape.gradient(loss, given)

    assert check_gradient(loss_and_gradient, [[-1.0, 0.3], [2.0, 0.0]]).passed


def test_own_gate_of_two_inputs_sums_the_gradient_of_what_was_repeated() -> None:
    row = np.array([0.5, -2.0, 3.0])

    def loss_and_gradient(x: Array) -> tuple[Variable, Any]:
        given = Variable(x)
        with GradientTape() as tape:
            loss = (
                apply(Product(), given, row).sum() + apply(Product(), [[1.0], [4.0]], given).sum()
            )
        return loss, tape.gradient(loss, given)

    assert check_gradient(loss_and_gradient, [1.0, 0.3, -2.0]).passed
    assert (Product.in_place, Product.reads_inputs, Product.reads_output) == (False, True, False)
