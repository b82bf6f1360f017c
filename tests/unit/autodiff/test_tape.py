"""What a tape records, and the shape of its answers; the numbers are those of well-known
tutorials."""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError


def test_tape_differentiates_a_square() -> None:
    x = Variable(3.0)
    with GradientTape() as tape:
        y = x**2
    assert tape.gradient(y, x) == 6.0


def test_tape_differentiates_a_layer_with_lists_as_constants() -> None:
    w, b = Variable([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), Variable([0.0, 0.0])
    with GradientTape() as tape:
        loss = (([[1.0, 2.0, 3.0]] @ w + b) ** 2).mean()
    assert float(loss) == 20.5
    answer = tape.gradient(loss, {"w": w, "b": (b, [w])})
    assert answer["w"].tolist() == [[4.0, 5.0], [8.0, 10.0], [12.0, 15.0]]
    assert answer["b"][0].tolist() == [4.0, 5.0]
    assert answer["b"][1][0].tolist() == answer["w"].tolist()


def test_tape_keeps_named_tuples() -> None:
    class Pair(NamedTuple):
        first: Variable
        second: Variable

    pair = Pair(Variable(2.0), Variable(3.0))
    with GradientTape() as tape:
        y = pair.first * pair.second
    answer = tape.gradient(y, pair)
    assert (answer.first, answer.second) == (3.0, 2.0)
    assert type(answer) is Pair


def test_tape_gives_every_intermediate_gradient_of_a_neuron() -> None:
    w, x, theta = Variable([-1.0, -1.5]), Variable([-3.0, 2.0]), Variable(0.5)
    with GradientTape() as tape:
        v = (w * x).sum() + theta
        y = f.sigmoid(v)
        error = y - 2.0
        loss = error**2
    assert float(v) == 0.5
    by_error, by_y, by_v, by_theta, by_w, by_x = tape.gradient(loss, [error, y, v, theta, w, x])
    values = [float(y), float(error), float(loss)]
    np.testing.assert_allclose(values, [0.6225, -1.3775, 1.8976], atol=5e-5)
    gradients = [by_error, by_y, by_v, by_theta]
    np.testing.assert_allclose(gradients, [-2.7551, -2.7551, -0.6475, -0.6475], atol=6e-5)
    np.testing.assert_allclose(by_w, [1.9424, -1.2949], atol=6e-5)
    np.testing.assert_allclose(by_x, [0.6475, 0.9712], atol=6e-5)


def test_tape_adds_where_branches_meet() -> None:
    x, y = Variable(3.0), Variable(-4.0)
    with GradientTape() as tape:
        value = (x + f.sigmoid(y)) / (f.sigmoid(x) + (x + y) ** 2)
    np.testing.assert_allclose(float(value), 1.545645, atol=5e-7)
    np.testing.assert_allclose(tape.gradient(value, (x, y)), (2.059570, 1.592233), atol=5e-7)


def test_tape_squares_a_variable_times_itself() -> None:
    x = Variable([2.0, -3.0])
    with GradientTape() as tape:
        y = x * x
    assert tape.gradient(y, x).tolist() == [4.0, -6.0]


def test_tape_gives_none_for_what_was_not_watched_or_is_not_connected() -> None:
    x, constant, stranger = Variable(2.0), Variable(3.0, watched=False), Variable(4.0)
    with GradientTape() as tape:
        y = x * constant
        _ = stranger * stranger
    assert tape.gradient(y, [x, constant, stranger]) == [3.0, None, None]


def test_tape_watches_on_request() -> None:
    x = Variable(2.0, watched=False)
    with GradientTape() as tape:
        tape.watch(x)
        y = x * 5.0
    assert tape.gradient(y, x) == 5.0


def test_tape_gives_none_for_a_target_made_elsewhere() -> None:
    x = Variable(2.0)
    y = x * x
    with GradientTape() as tape:
        _ = x * x
    assert tape.gradient(y, x) is None


def test_tape_sums_targets_of_any_shape_and_several_targets() -> None:
    x = Variable([1.0, 2.0])
    with GradientTape(persistent=True) as tape:
        y = x * [[1.0, 2.0], [3.0, 4.0]]
        z = y * 10.0
    assert tape.gradient(y, x).tolist() == [4.0, 6.0]
    assert tape.gradient([y, z], x).tolist() == [44.0, 66.0]
    assert tape.gradient([y, y], x).tolist() == [8.0, 12.0]
    assert tape.gradient([y, z], y).tolist() == [[11.0, 11.0], [11.0, 11.0]]
    assert tape.gradient(x, x).tolist() == [1.0, 1.0]


def test_tape_answers_once_unless_persistent() -> None:
    x = Variable(2.0)
    with GradientTape() as tape:
        y = x * x
    tape.gradient(y, x)
    with pytest.raises(ModelError, match="persistent=True"):
        tape.gradient(y, x)
    with GradientTape(persistent=True) as tape:
        y = x * x
    assert [tape.gradient(y, x) for _ in range(3)] == [4.0, 4.0, 4.0]


def test_tapes_nest_and_close() -> None:
    x = Variable(2.0)
    with GradientTape() as outer:
        y = x * x
        with GradientTape() as inner:
            z = x * 3.0
        w = y + z
    _ = x * x
    assert inner.gradient(z, x) == 3.0
    assert outer.gradient(w, x) == 7.0
    assert len(outer.nodes) == 3


def test_tape_does_not_take_a_new_variable_for_a_dead_one() -> None:
    x = Variable(2.0)
    with GradientTape() as tape:
        y = x
        for _ in range(50):
            y = y * 1.0
            gc.collect(0)
    assert tape.gradient(y, x) == 1.0


def test_tape_refuses_sources_that_are_no_variables() -> None:
    x = Variable(1.0)
    with GradientTape() as tape:
        y = x * x
    with pytest.raises(ModelError, match="must be a Variable"):
        tape.gradient(y, [x, 3.0])


def test_tape_that_watches_nothing_by_itself_records_what_it_is_told_to() -> None:
    x, y = Variable(2.0), Variable(3.0)
    with GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        before = x * y
        tape.watch(x)
        after = x * y
        alone = y * y
    assert tape.gradient(after, [x, y]) == [3.0, None]
    assert tape.gradient(before, [x, y]) == [None, None]
    assert tape.gradient(alone, [x, y]) == [None, None]
    assert len(tape.nodes) == 1


def test_tape_watches_lists_and_dictionaries() -> None:
    x, y, z = Variable(2.0), Variable(3.0, watched=False), Variable(5.0)
    with GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, {"y": y}])
        product = x * y * z
    assert tape.gradient(product, [x, y, z]) == [15.0, 10.0, None]
    for wrong, says in ((3.0, "watch got 3.0"), (Variable([1], dtype=np.int64), "dtype int64")):
        with pytest.raises(ModelError, match=says):
            tape.watch(wrong)  # type: ignore[arg-type] # the mistake


def test_whole_numbers_have_no_gradient() -> None:
    x, count = Variable(2.0), Variable(3, dtype=np.int64)
    with GradientTape(persistent=True) as tape:
        y = x * count * 0.5
        z = count * 0.5
    assert (float(y), float(z)) == (3.0, 1.5)
    assert tape.gradient(y, x) == 1.5
    with pytest.raises(ModelError, match="dtype int64 has no gradient"):
        tape.gradient(y, [x, count])


def test_output_gradients_are_what_the_gradient_begins_with() -> None:
    x = Variable([1.0, 2.0, 3.0])
    with GradientTape(persistent=True) as tape:
        y = x**2
        z = y * x
    assert tape.gradient(y, x, output_gradients=[1.0, 10.0, 100.0]).tolist() == [2, 40, 600]
    assert tape.gradient(y, x, [np.array([1.0, 0.0, -1.0])]).tolist() == [2, 0, -6]
    assert tape.gradient(y, x, [None]).tolist() == tape.gradient(y, x).tolist() == [2, 4, 6]
    assert tape.gradient([y, z], x, [Variable([1, 0, 0]), None]).tolist() == [5, 12, 27]
    # A target that another one is made of, and one that is named twice.
    by_y = tape.gradient([y, z], y, output_gradients=[[5.0, 5.0, 5.0], [1.0, 1.0, 1.0]])
    assert by_y.tolist() == [6, 7, 8]
    assert tape.gradient([y, y], x, [[1, 1, 1], [2, 2, 2]]).tolist() == [6, 12, 18]
    assert tape.gradient(y, x, [1, 1, 1]).dtype == np.float64


def test_output_gradients_give_rows_of_a_jacobian() -> None:
    x, w = np.array([0.5, -1.0]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    v = Variable(x)
    with GradientTape(persistent=True) as tape:
        y = f.tanh(v @ w)
    rows = [tape.gradient(y, v, output_gradients=one) for one in np.eye(3)]
    np.testing.assert_allclose(rows, (1 / np.cosh(x @ w) ** 2)[:, None] * w.T, rtol=1e-14)


def test_output_gradients_are_in_the_dtype_of_the_target() -> None:
    x = Variable(np.float32(3.0))
    with GradientTape() as tape:
        y = x * x
    gradient = tape.gradient(y, x, output_gradients=0.5)
    assert (float(gradient), gradient.dtype) == (3.0, np.float32)


@pytest.mark.parametrize(
    ("target", "given", "says"),
    [
        ("y", [1.0, 2.0], r"shape \(2,\) for a target of shape \(3,\)"),
        ("y", 1.0, r"shape \(\) for a target of shape \(3,\)"),
        ("y", [[1.0, 2.0, 3.0, 4.0]], r"shape \(1, 4\)"),
        ("y", "one", "must be real numbers"),
        ("both", [1.0, 2.0, 3.0], "has 3 for 2 targets"),
        ("both", np.ones((2, 3)), "has no list for 2 targets"),
        ("both", [None, [1.0]], r"shape \(1,\) for a target of shape \(3,\)"),
    ],
)
def test_output_gradients_that_do_not_fit_are_refused(target: str, given: Any, says: str) -> None:
    x = Variable([1.0, 2.0, 3.0])
    with GradientTape() as tape:
        y = x**2
    targets: Any = {"y": y, "both": [y, x]}[target]
    with pytest.raises(ModelError, match=says):
        tape.gradient(targets, x, output_gradients=given)
    # What was refused has not spent the tape.
    assert tape.gradient(y, x).tolist() == [2, 4, 6]


def test_tape_refuses_targets_that_are_no_variables() -> None:
    x = Variable([1.0, 2.0])
    with GradientTape() as tape:
        y: Any = np.dot(x.value, [1.0, 1.0])
    targets: list[Any] = [y, [x, y], None]
    for target in targets:
        with pytest.raises(ModelError, match=r"the target is .*compute with Variables"):
            tape.gradient(target, x)
