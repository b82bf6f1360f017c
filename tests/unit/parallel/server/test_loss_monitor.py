from __future__ import annotations

import math

import numpy as np
import pytest

from distsgd.parallel.server.loss_monitor import (
    FEWEST_STEPS,
    GROWTH,
    LONGEST_WINDOW,
    LossMonitor,
    goes_somewhere,
    why_diverged,
)


def paced(losses: list[float], window: int) -> LossMonitor:
    loss_monitor = LossMonitor.of(window)
    for loss in losses:
        loss_monitor.note(loss)
    return loss_monitor


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_no_number_is_divergence_at_once(loss: float) -> None:
    assert LossMonitor.of(1).has_diverged(loss)


def test_growth_is_held_against_the_largest_loss_of_the_first_epoch() -> None:
    loss_monitor = LossMonitor.of(3)
    for loss in (1e-30, 2.0, 1e-3):
        assert not loss_monitor.has_diverged(1e30)  # Within the first epoch nothing is known yet.
        loss_monitor.note(loss)
    assert not loss_monitor.has_diverged(2.0 * GROWTH)
    assert loss_monitor.has_diverged(math.nextafter(2.0 * GROWTH, math.inf))


def test_perfect_first_epoch_is_no_measure() -> None:
    assert not paced([0.0, 0.0], 2).has_diverged(1e30)


def test_window_is_an_epoch_but_not_for_ever() -> None:
    assert LossMonitor.of(7).window == 7
    assert LossMonitor.of(10**9).window == LONGEST_WINDOW


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0] * FEWEST_STEPS, True),
        ([1.0] * (FEWEST_STEPS - 1), False),  # Too few to say anything.
        ([1.0] * 9 + [0.98], False),
        ([1.0] * 9 + [0.995], True),
        ([1.0] + [0.5] * 8 + [1.0], True),
    ],
)
def test_hardly_falling_is_a_matter_of_first_and_last_window(
    losses: list[float], *, expected: bool
) -> None:
    assert paced(losses, 1).hardly_fell() == expected


def test_means_are_over_whole_windows() -> None:
    loss_monitor = LossMonitor.of(2)
    assert [loss_monitor.note(loss) for loss in (1.0, 3.0, 5.0, 6.0, 9.0)] == [
        None,
        2.0,
        None,
        5.5,
        None,
    ]
    assert (loss_monitor.first_mean, loss_monitor.last_mean) == (2.0, 5.5)
    assert LossMonitor(**loss_monitor.state()) == loss_monitor


@pytest.mark.parametrize(
    ("first", "before", "after", "expected"),
    [
        (0.0, 0.9, 1.0, True),  # Ten steps in one direction.
        (0.3, 0.3, 0.5, False),  # Swinging: it came as far as its last step.
        (0.5, 0.3, 0.5, False),
        (0.5, 0.5, 0.5, True),  # Steps too small to change the number.
        (0.0, 0.0, math.nan, False),
    ],
)
def test_going_somewhere_is_farther_than_two_last_steps(
    first: float, before: float, after: float, *, expected: bool
) -> None:
    arrays = (np.array([value]) for value in (first, before, after))
    assert goes_somewhere(*arrays) == expected


def test_advice_says_in_words_what_is_no_number() -> None:
    assert "the loss is not a number at" in why_diverged(math.nan, 0.1, step=3)
    assert "the loss is infinite at" in why_diverged(math.inf, 0.1, step=3)
    assert "the loss has grown to 2.5e+09 at" in why_diverged(2.5e9, 0.1, step=3)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_before_the_first_update_no_rate_is_to_blame(loss: float) -> None:
    said = why_diverged(loss, 0.1, step=0)
    assert "before the first update" in said
    assert "initial weights" in said
    assert "too high" not in said


@pytest.mark.parametrize("step", [0, 5])
def test_outputs_outside_the_domain_are_to_blame_before_the_rate(step: int) -> None:
    said = why_diverged(math.nan, 0.1, step=step, output_advice="end the network otherwise")
    assert said == "the loss is not a number; end the network otherwise"
    grown = why_diverged(1e9, 0.1, step=5, output_advice="end the network otherwise")
    assert "too high" in grown
