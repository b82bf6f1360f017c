"""Backpropagation as notebooks write it: vectors, matrices, transposes, one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distsgd.autodiff as ad
from distsgd.autodiff import GradientTape, Variable, check_gradient
from distsgd.lessons import slope_at


def test_dot_product_and_its_two_gradients() -> None:
    x, w = Variable([1.0, 2.0, 3.0]), Variable([0.5, -1.0, 2.0])
    with GradientTape() as tape:
        y = w @ x
    assert float(y) == 4.5
    by_w, by_x = tape.gradient(y, [w, x])
    assert by_w.tolist() == x.value.tolist()
    assert by_x.tolist() == w.value.tolist()


def test_matrix_times_vector_has_an_outer_product_as_gradient() -> None:
    w, x, d = Variable([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), Variable([3.0, 1.0, 2.0]), [10.0, 1.0]
    with GradientTape() as tape:
        y = w @ x
    assert y.value.tolist() == [5.0, -1.0]
    by_w, by_x = tape.gradient(y, [w, x], output_gradients=d)
    assert by_w.tolist() == ad.outer(d, x).value.tolist() == [[30, 10, 20], [3, 1, 2]]
    assert by_x.tolist() == (w.T @ d).value.tolist() == [10.0, 21.0, -1.0]


def test_two_layers_of_one_row_are_those_of_a_batch() -> None:
    chance = np.random.default_rng(0)
    rows, classes = chance.standard_normal((5, 3)), np.array([0, 2, 1, 1, 0])
    w1, w2 = (Variable(chance.standard_normal(shape)) for shape in ((4, 3), (3, 4)))
    with GradientTape(persistent=True) as tape:
        whole = ad.softmax_cross_entropy(ad.tanh(rows @ w1.T) @ w2.T, classes).mean()
        alone = [
            ad.softmax_cross_entropy(w2 @ ad.tanh(w1 @ row), k)
            for row, k in zip(rows, classes, strict=True)
        ]
        total = ad.stack(alone).mean()
    assert float(total) == pytest.approx(float(whole), rel=1e-14)
    for one, other in zip(
        tape.gradient(whole, [w1, w2]), tape.gradient(total, [w1, w2]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_softmax_of_scores_and_its_loss_are_the_printed_ones() -> None:
    scores = Variable([3.2, 5.1, -1.7])
    with GradientTape() as tape:
        loss = ad.softmax_cross_entropy(scores, 0)
    # CS231n's cat: probabilities 0.13, 0.87, 0.00.
    p = ad.softmax(scores).value
    np.testing.assert_allclose(p, [0.13, 0.87, 0.0], atol=5e-3)
    assert float(loss) == pytest.approx(2.04, abs=5e-3)
    np.testing.assert_allclose(tape.gradient(loss, scores), p - [1, 0, 0], atol=1e-15)
    assert float(ad.softmax_cross_entropy(scores, [1, 0, 0])) == pytest.approx(float(loss))
    assert float(ad.hinge(scores, 0)) == pytest.approx(2.9)


def test_canonical_example_of_automatic_differentiation() -> None:
    """``f = x₁x₂ + sin x₁`` and its two partial derivatives."""
    here = slope_at(lambda x: x[0] * x[1] + ad.sin(x[0]), [2.0, 3.0])
    assert here.value == 6.0 + np.sin(2.0)
    assert here.gradient.tolist() == [3.0 + np.cos(2.0), 2.0]


def test_checker_takes_a_function_of_a_vector_apart() -> None:
    def cost_and_gradient(x: Any) -> tuple[Any, Any]:
        v = Variable(x)
        with GradientTape() as tape:
            first, second, *rest = v
            cost = first * second + ad.exp(second) + ad.stack(rest).sum() ** 2
        return cost, tape.gradient(cost, v)

    assert check_gradient(cost_and_gradient, [1.0, 0.5, -1.0, 2.0]).passed


def test_only_what_is_watched_is_differentiated_by() -> None:
    w, frozen = Variable([1.0, 2.0]), Variable([3.0, 4.0])
    with GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(w)
        y = w @ frozen
    by_w, by_frozen = tape.gradient(y, [w, frozen])
    assert by_w.tolist() == [3.0, 4.0]
    assert by_frozen is None
