"""A gate of one's own: a leaky ReLU in a dozen lines, on the tape and under the checker."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from distsgd.autodiff import (
    Gate,
    GradientTape,
    OpContext,
    Variable,
    apply,
    check_gradient,
    grad_or_ones,
)
from distsgd.errors import ModelError
from distsgd.lessons import draw_text


class LeakyRelu(Gate):
    name = "leaky_relu"

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]

    def stage_forward(self, context: OpContext) -> Any:
        return [lambda: np.multiply(context.inputs[0], self.slope(context), context.output)]

    def stage_backward(self, context: OpContext, index: int, grad: Any, out: Any) -> Any:
        del index  # it has one input
        return [lambda: np.multiply(grad_or_ones(grad, context), self.slope(context), out)]

    def slope(self, context: OpContext) -> Any:
        return np.where(context.inputs[0] > 0, 1.0, 0.1)


class WrongCube(Gate):
    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]

    def stage_forward(self, context: OpContext) -> Any:
        return [partial(np.power, context.inputs[0], 3, context.output)]

    def stage_backward(self, context: OpContext, index: int, grad: Any, out: Any) -> Any:
        del index, grad
        return [partial(np.square, context.inputs[0], out)]


def cost_of(gate: Gate) -> Any:
    def cost_and_gradient(x: Any) -> tuple[Variable, Any]:
        v = Variable(x)
        with GradientTape() as tape:
            cost = (apply(gate, v) * [1.0, 2.0, 3.0]).sum()
        return cost, tape.gradient(cost, v)

    return cost_and_gradient


def test_own_gate_works_like_any_other() -> None:
    x = Variable([-2.0, 1.0, 3.0])
    with GradientTape(persistent=True) as tape:
        y = apply(LeakyRelu(), x)
        loss = (y**2).sum()
    assert y.value.tolist() == [-0.2, 1.0, 3.0]
    assert tape.gradient(loss, x).tolist() == pytest.approx([-0.04, 2.0, 6.0])
    assert "leaky_relu" in draw_text(tape, loss)


def test_gate_that_lacks_a_method_is_told_which() -> None:
    class Halved(Gate):
        name = "halved"

        def output_shape(self, *shapes: Any) -> Any:
            return shapes[0]

        def stage_forward(self, context: OpContext) -> Any:
            return [partial(np.multiply, context.inputs[0], 0.5, context.output)]

    x = Variable([1.0, 2.0])
    with GradientTape() as tape:
        y = apply(Halved(), x)
    with pytest.raises(ModelError, match=r"'halved' \(Halved\) has no stage_backward"):
        tape.gradient(y, x)
    with pytest.raises(ModelError, match="has no output_shape"):
        apply(Gate(), x)


def test_checker_tells_a_right_gate_from_a_wrong_one() -> None:
    assert check_gradient(cost_of(LeakyRelu()), [-2.0, 1.0, 3.0]).passed
    found = check_gradient(cost_of(WrongCube()), [-2.0, 1.0, 3.0])
    assert not found.passed
    assert found.numerical == pytest.approx(12.0)
    assert found.analytical == 4.0
