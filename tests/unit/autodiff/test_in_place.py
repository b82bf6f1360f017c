"""Values that change under a tape, and gradients under another tape: right, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError


def test_variable_changed_in_place_is_refused_where_its_old_numbers_are_needed() -> None:
    x, b = Variable(3.0), Variable(2.0)
    with GradientTape(persistent=True) as tape:
        y = x * b
        z = y + b
    x.value -= 1.0
    with pytest.raises(ModelError, match="changed in place after a tape recorded it"):
        tape.gradient(y, b)
    # What reads no old number is right as before.
    assert tape.gradient(z, y) == 1.0
    tape.recompute()
    assert (float(y), float(tape.gradient(y, b))) == (2.0 * 2.0, 2.0)


def test_variable_changed_in_place_while_a_tape_records_is_refused() -> None:
    x = Variable([3.0, 1.0])
    with GradientTape() as tape:
        y = x * x
        x.value[0] += 1.0
        z = y * x
    with pytest.raises(ModelError, match=r"shape \(2,\) was changed in place"):
        tape.gradient(z, x)


def test_layers_updated_from_first_to_last_are_right_and_from_last_to_first_refused() -> None:
    def tape_of(w: Variable, v: Variable) -> tuple[GradientTape, Variable]:
        with GradientTape(persistent=True) as tape:
            loss = (f.tanh([[1.0, 2.0]] @ w) @ v).sum()
        return tape, loss

    w, v = Variable([[0.1], [0.2]]), Variable([[0.3]])
    tape, loss = tape_of(w, v)
    expected = tape.gradient(loss, v).tolist()
    w.value -= 0.1 * tape.gradient(loss, w)
    assert tape.gradient(loss, v).tolist() == expected
    v.value -= 0.1
    with pytest.raises(ModelError, match=r"x.value = x.value - step"):
        tape.gradient(loss, w)


def test_variable_given_another_array_keeps_what_was_recorded() -> None:
    x, b = Variable(3.0), Variable(2.0)
    with GradientTape(persistent=True) as tape:
        y = x * b
    x.value = x.value - 1.0
    assert tape.gradient(y, [x, b]) == [2.0, 3.0]
    with pytest.raises(ModelError, match=r"write x.value\[...\] = numbers"):
        tape.recompute()


@pytest.mark.parametrize("numbers", [5, 5.0, [1, 2], np.array([1, 2]), np.float32(2.0), True])
def test_value_can_be_set_to_any_numbers(numbers: Any) -> None:
    x = Variable(3.0)
    x.value = numbers
    assert (x.value.tolist(), x.dtype.kind) == (np.asarray(numbers).tolist(), "f")
    with GradientTape() as tape:
        y = x * x
    assert tape.gradient(y, x).tolist() == (2.0 * np.asarray(numbers)).tolist()


@pytest.mark.parametrize("wrong", ["three", None, 1j, [[1.0], [1.0, 2.0]]])
def test_value_is_not_set_to_what_is_no_numbers(wrong: Any) -> None:
    x = Variable(3.0)
    with pytest.raises(ModelError, match="must be"):
        x.value = wrong
    assert x.value == 3.0


def test_class_numbers_stay_whole_when_they_are_set() -> None:
    classes = Variable([1, 2], dtype=np.int64)
    classes.value = [0, 1]
    assert classes.dtype == np.int64


def test_what_a_tape_computed_is_read_only() -> None:
    x = Variable([1.0, -3.0])
    with GradientTape() as tape:
        hidden = x * 2.0
        view = x.reshape(2, 1)
        for computed in (hidden, view):
            with pytest.raises(ValueError, match="read-only"):
                computed.value[...] = 0.0
            with pytest.raises(ModelError, match="that a tape computed"):
                computed.value = computed.value * 0.0
        y = hidden * view[:, 0]
    assert tape.gradient(y, x).tolist() == [4.0, -12.0]
    x.value[0] = 5.0
    free = x * 2.0
    free.value[0] = 7.0
    assert free.value.tolist() == [7.0, -6.0]


def test_view_is_brought_up_to_date_too() -> None:
    x = Variable([1.0, 2.0])
    with GradientTape(persistent=True) as tape:
        y = (x.reshape(2, 1) ** 2).sum()
    x.value[...] = [3.0, 4.0]
    tape.recompute()
    assert (float(y), tape.gradient(y, x).tolist()) == (25.0, [6.0, 8.0])


def test_gradient_of_a_gradient_is_refused_and_not_taken_for_a_constant() -> None:
    x = Variable(3.0)
    with GradientTape(persistent=True) as outer:
        with GradientTape() as inner:
            y = x * x * x
        slope = inner.gradient(y, x)
        assert slope == 27.0
        calls: list[Any] = [
            lambda: slope * x,
            lambda: x + slope**2,
            lambda: (slope + 1.0) / x,
            lambda: np.sum(slope) * x,
            lambda: Variable(slope),
        ]
        for call in calls:
            with pytest.raises(ModelError, match="gradients of gradients are not given"):
                call()
        z: Any = np.array(slope) * x
    with pytest.raises(ModelError, match="the target is"):
        outer.gradient(slope, x)
    assert outer.gradient(z, x) == 27.0
    assert (slope * x).value == 81.0


def test_gradient_under_a_tape_that_saw_nothing_of_it_is_a_constant() -> None:
    x, other = Variable(3.0), Variable(2.0)
    with GradientTape() as inner:
        y = x * x
    with GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(other)
        z = inner.gradient(y, x) * other
    assert outer.gradient(z, other) == 6.0


def test_persistent_tape_answers_while_it_is_open() -> None:
    x = Variable(3.0)
    with GradientTape(persistent=True) as tape:
        y = x * x
        slope = tape.gradient(y, x)
        with pytest.raises(ModelError, match="gradients of gradients are not given"):
            slope * x
        z = float(slope) * x
    assert (slope, tape.gradient(z, x)) == (6.0, 6.0)


def test_array_beside_a_variable_that_changed_is_refused_too() -> None:
    w, rows = Variable([1.0, 1.0]), np.array([1.0, 2.0])
    with GradientTape() as tape:
        total: Any = (w * rows).sum()
        rows[...] = [3.0, 4.0]
        total = total + (w * rows).sum()
    with pytest.raises(ModelError, match="take a new array"):
        tape.gradient(total, w)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_change_of_one_number_of_many_is_seen(dtype: type, order: Any) -> None:
    numbers: Any = np.ones((99, 301), dtype, order=order)
    for place in ((0, 0), (50, 7), (98, 300), (98, 299)):
        w = Variable(np.ones(301, dtype))
        with GradientTape() as tape:
            y = numbers * w
        numbers[place] += 1
        with pytest.raises(ModelError, match=r"shape \(99, 301\) was changed"):
            tape.gradient(y, w)
    with GradientTape() as tape:
        y = numbers * w
    assert tape.gradient(y, w).tolist() == numbers.sum(axis=0, dtype=dtype).tolist()


@pytest.mark.parametrize("is_in_the_tape", [True, False])
def test_variable_that_was_stepped_is_watched_by_the_next_tape(*, is_in_the_tape: bool) -> None:
    first = w = Variable(5.0)
    for _ in range(3):
        with GradientTape() as tape:
            cost = w**2
            if is_in_the_tape:
                w = w - 0.25 * tape.gradient(cost, w)
        if not is_in_the_tape:
            w -= 0.25 * tape.gradient(cost, w)
    assert (float(w), float(first)) == (0.625, 5.0)
    constant = Variable(2.0, watched=False) * 3.0
    with GradientTape() as tape:
        y = constant * 2.0
    assert tape.gradient(y, constant) is None
