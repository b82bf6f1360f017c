"""Gates and circuits: local gradients, chained backward, added where branches meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable, assert_gradient
from distsgd.errors import ModelError


def test_circuit_of_a_sum_times_a_number() -> None:
    x, y, z = Variable(-2.0), Variable(5.0), Variable(-4.0)
    with GradientTape() as tape:
        out = (x + y) * z
    assert float(out) == -12.0
    assert tape.gradient(out, [x, y, z]) == [-4.0, -4.0, 3.0]


def in_one(v: Variable) -> Variable:
    return f.sigmoid(v)


def in_pieces(v: Variable) -> Variable:
    return f.reciprocal(1.0 + f.exp(-1.0 * v))


@pytest.mark.parametrize("sigmoid", [in_one, in_pieces])
def test_circuit_of_a_neuron_in_one_gate_or_in_pieces(
    sigmoid: Callable[[Variable], Variable],
) -> None:
    w = [Variable(2.0), Variable(-3.0), Variable(-3.0)]
    x = [Variable(-1.0), Variable(-2.0)]
    with GradientTape(persistent=True) as tape:
        v = w[0] * x[0] + w[1] * x[1] + w[2]
        y = sigmoid(v)
    assert float(y) == pytest.approx(0.7311, abs=5e-5)
    assert tape.gradient(y, v) == pytest.approx(0.1966, abs=5e-5)
    dw, dx = tape.gradient(y, (w, x))
    np.testing.assert_allclose(dw, [-0.1966, -0.3932, 0.1966], rtol=0, atol=5e-5)
    np.testing.assert_allclose(dx, [0.3932, -0.5898], rtol=0, atol=5e-5)


def test_circuit_in_stages_adds_up_where_branches_meet() -> None:
    x, y = Variable(3.0), Variable(-4.0)
    with GradientTape() as tape:
        above = x + f.sigmoid(y)
        below = f.sigmoid(x) + (x + y) ** 2
        out = above * f.reciprocal(below)
    assert float(out) == pytest.approx(1.545645, abs=5e-7)
    dx, dy = tape.gradient(out, [x, y])
    assert dx == pytest.approx(2.059570, abs=5e-7)
    assert dy == pytest.approx(1.592233, abs=5e-7)


def test_sigmoid_of_a_matrix_and_its_gradient() -> None:
    x = Variable([[1, 2], [-1, -2]])
    with GradientTape() as tape:
        y = f.sigmoid(x)
    printed = [[0.73105858, 0.88079708], [0.26894142, 0.11920292]]
    np.testing.assert_allclose(y.value, printed, rtol=0, atol=5e-9)
    slopes = [[0.19661193, 0.10499359], [0.19661193, 0.10499359]]
    np.testing.assert_allclose(tape.gradient(y, x), slopes, rtol=0, atol=5e-9)


GATES: dict[str, tuple[Callable[[Variable], Variable], float]] = {
    "c + x": (lambda x: 3.0 + x, 1.0),
    "a · x": (lambda x: 3.0 * x, 3.0),
    "x + x": (lambda x: x + x, 2.0),
    "exp": (f.exp, float(np.exp(2.0))),
    "reciprocal": (f.reciprocal, -0.25),
    "power": (lambda x: x**3, 12.0),
    "maximum, the larger": (lambda x: f.maximum(x, 1.0), 1.0),
    "maximum, the smaller": (lambda x: f.maximum(x, 3.0), 0.0),
    "matmul": (lambda x: x.reshape(1, 1) @ [[5.0]], 5.0),
}


@pytest.mark.parametrize("name", GATES)
def test_gate_has_its_local_gradient(name: str) -> None:
    gate, slope = GATES[name]
    x = Variable(2.0)
    with GradientTape() as tape:
        y = gate(x)
    assert tape.gradient(y, x) == pytest.approx(slope, rel=1e-15)

    def cost_and_gradient(at: NDArray[np.float64]) -> tuple[float, float]:
        moved = Variable(at)
        with GradientTape() as tape:
            cost = gate(moved)
        return float(cost.value.item()), tape.gradient(cost, moved)

    assert_gradient(cost_and_gradient, 2.0)


def test_forward_values_are_kept_and_computed_again_on_request() -> None:
    x, y = Variable(3.0), Variable(-4.0)
    with GradientTape(persistent=True) as tape:
        total = x + y
        out = total.reshape(1) * x
    assert (float(total), out.value.tolist()) == (-1.0, [-3.0])
    x.value[...] = 10.0
    assert (float(total), out.value.tolist()) == (-1.0, [-3.0]), "kept from the first time"
    tape.recompute()
    assert (float(total), out.value.tolist()) == (6.0, [60.0])
    assert tape.gradient(out, [x, y]) == [16.0, 10.0]


def test_a_spent_tape_computes_nothing_again() -> None:
    x = Variable(3.0)
    with GradientTape() as tape:
        y = x * x
    tape.gradient(y, x)
    with pytest.raises(ModelError, match="persistent=True"):
        tape.recompute()
