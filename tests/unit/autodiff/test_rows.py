"""Losses of one row and of many, and classes told as numbers or as rows of probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd import autodiff as f
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.lessons import losses as lessons
from tests.unit.autodiff.test_gates import CLASSES_N, signed, unit

Floats = NDArray[np.float64]
Function = Callable[..., Variable]
NUMBER_LOSSES: list[Function] = [
    f.sigmoid_cross_entropy,
    f.squared_error,
    f.quadratic,
    f.cross_entropy,
    lessons.exponential,
    lessons.hellinger,
    lessons.kullback_leibler,
    lessons.itakura_saito,
    f.mean_absolute,
    f.huber,
]


@pytest.mark.parametrize("loss", NUMBER_LOSSES)
def test_loss_of_one_row_is_that_of_a_matrix_with_one_row(loss: Function) -> None:
    a_O, t_O = unit(4), unit(4, seed=3)
    row, matrix = Variable(a_O), Variable(a_O[None])
    with GradientTape() as tape:
        of_row, of_matrix = loss(row, t_O), loss(matrix, t_O[None])
    assert of_row.shape == ()
    assert [of_row.value.tolist()] == of_matrix.value.tolist()
    by_row, by_matrix = tape.gradient([of_row, of_matrix], [row, matrix])
    assert [by_row.tolist()] == by_matrix.tolist()
    assert loss(a_O.tolist(), Variable(t_O)).value.tolist() == of_row.value.tolist()
    assert loss(Variable(a_O[0]), float(t_O[0])).shape == ()


def test_class_may_be_told_as_number_or_as_one_hot_row() -> None:
    z_NO, hot_NO = Variable(signed(3, 4)), np.eye(4)[CLASSES_N]
    for loss in (f.softmax_cross_entropy, f.hinge):
        with GradientTape(persistent=True) as tape:
            told = [loss(z_NO, CLASSES_N), loss(z_NO, hot_NO), loss(z_NO, hot_NO.astype(bool))]
            one = loss(z_NO[1], 3)
        gradients = [tape.gradient(loss_N, z_NO) for loss_N in told]
        for other, gradient in zip(told[1:], gradients[1:], strict=True):
            np.testing.assert_allclose(other.value, told[0].value, rtol=1e-14)
            np.testing.assert_allclose(gradient, gradients[0], rtol=0, atol=1e-15)
        assert float(one) == told[0].value[1]
        assert loss(z_NO, CLASSES_N.astype(float)).value.tolist() == told[0].value.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_probabilities_is_exact_where_it_is_small(dtype: type) -> None:
    z_NO: Floats = np.array([[0, 40], [0, 10], [0, 80], [1e4, -1e4], [0, 0]], dtype)
    t_NO: Floats = np.array([[0, 1], [0, 1], [0, 1], [0, 1], [0.5, 0.5]], dtype)
    z = Variable(z_NO)
    with GradientTape() as tape:
        loss_N = f.softmax_cross_entropy(z, t_NO)
    exact_N = [np.exp(-40.0), np.log1p(np.exp(-10.0)), np.exp(-80.0), 2e4, np.log(2.0)]
    np.testing.assert_allclose(loss_N.value, exact_N, rtol=4 * float(np.finfo(dtype).eps))
    assert loss_N.dtype == dtype
    assert tape.gradient(loss_N, z)[3:].tolist() == [[1.0, -1.0], [0.0, 0.0]]
