"""The gradient tape: what is watched, what comes back, and in which structure."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd.autodiff import GradientTape, Variable
from distsgd.errors import ModelError

X = [[1.0, 2.0, 3.0]]


def test_tape_of_a_square_at_3_says_6() -> None:
    x = Variable(3.0)
    with GradientTape() as tape:
        y = x**2
    assert tape.gradient(y, x) == 6.0


def test_tape_of_a_linear_layer_gives_the_printed_loss_and_gradients() -> None:
    w, b = Variable([[1, 0], [0, 1], [1, 1]]), Variable([0, 0])
    with GradientTape(persistent=True) as tape:
        loss = ((X @ w + b) ** 2).mean()
    assert float(loss) == 20.5
    dw, db = tape.gradient(loss, [w, b])
    assert dw.tolist() == [[4, 5], [8, 10], [12, 15]]
    assert db.tolist() == [4, 5]
    named = tape.gradient(loss, {"weights": (w,), "bias": b})
    assert named["weights"][0].tolist() == dw.tolist()
    assert named["bias"].tolist() == db.tolist()


def test_tape_gives_none_for_what_is_not_watched() -> None:
    watched, unwatched = Variable(2.0), Variable(3.0, watched=False)
    with GradientTape(persistent=True) as tape:
        y = watched * unwatched
    assert tape.gradient(y, [watched, unwatched]) == [3.0, None]
    assert tape.gradient(y, Variable(1.0)) is None
    with GradientTape() as tape:
        tape.watch(unwatched)
        y = watched * unwatched
    assert tape.gradient(y, unwatched) == 2.0


def test_tape_sums_a_target_of_any_shape() -> None:
    x = Variable([1.0, 2.0, 3.0])
    with GradientTape(persistent=True) as tape:
        y = x**2
        z = y * 2.0
    assert tape.gradient(y, x).tolist() == [2, 4, 6]
    assert tape.gradient([y, z], x).tolist() == [6, 12, 18]


def test_tape_gives_gradients_by_inputs_and_by_intermediate_values() -> None:
    w, x = Variable([[2.0], [3.0]]), Variable([[5.0, 7.0]])
    with GradientTape() as tape:
        h = x @ w
        y = h**2
    by_x, by_h = tape.gradient(y, [x, h])
    assert by_x.tolist() == [[124, 186]]
    assert by_h.tolist() == [[62]]


def test_tape_answers_once_unless_it_is_persistent() -> None:
    x = Variable(3.0)
    with GradientTape() as tape:
        y = x**3
    assert tape.gradient(y, x) == 27.0
    with pytest.raises(ModelError, match="persistent=True"):
        tape.gradient(y, x)
    with GradientTape(persistent=True) as kept:
        y = x**3
    assert [kept.gradient(y, x), kept.gradient(y, x)] == [27.0, 27.0]
    assert np.asarray(kept.gradient(y, x)).dtype == np.float64
