from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.parallel.server.fallback import TRIAL_STEPS, Fallback
from distsgd.parallel.server.pace import Pace

Array = NDArray[Any]


def step(way: Fallback, pace: Pace, weights: Array, loss: float) -> None:
    """A step of mean loss `loss` that moves the weight by 1."""
    way.before_step()
    weights += 1.0
    mean = pace.note(loss)
    if mean is not None:
        way.after_window(mean)


def made(window: int = 1) -> tuple[Fallback, Pace, Array]:
    pace, weights = Pace.of(window), np.zeros(1)
    return Fallback(pace, {"weights": weights}), pace, weights


def test_good_weights_are_those_before_the_window_of_lowest_mean() -> None:
    way, pace, weights = made()
    for loss in (3.0, 2.0, 5.0, 7.0):
        step(way, pace, weights, loss)
    way.before_step()
    way.go_back(on_trial=True)
    assert weights.tolist() == [1.0]
    assert (way.halvings, way.factor) == (1, 0.5)


def test_run_that_diverges_in_its_first_window_goes_back_to_its_start() -> None:
    way, pace, weights = made(10)
    for loss in (3.0, 30.0, 300.0):
        step(way, pace, weights, loss)
    way.before_step()
    way.go_back(on_trial=True)
    assert weights.tolist() == [0.0]
    assert (pace.num_steps, pace.loss_sum, pace.reference) == (0, 0.0, 0.0)
    assert not way.fails_trial(1e9)  # There is no window to be held against.


def test_trial_fails_when_no_window_is_lower() -> None:
    way, pace, weights = made()
    step(way, pace, weights, 2.0)
    way.go_back(on_trial=True)
    for _ in range(TRIAL_STEPS - 1):
        assert not way.fails_trial(2.0)
        step(way, pace, weights, 2.0)
    assert way.fails_trial(2.0)
    assert not way.fails_trial(1.9)
    way.go_back(on_trial=False)
    assert not way.fails_trial(2.0)


def test_trial_is_passed_by_one_lower_window() -> None:
    way, pace, weights = made()
    step(way, pace, weights, 2.0)
    way.go_back(on_trial=True)
    step(way, pace, weights, 1.9)
    for _ in range(2 * TRIAL_STEPS):
        assert not way.fails_trial(3.0)
        step(way, pace, weights, 3.0)


def test_restored_way_back_leads_to_the_same_place() -> None:
    way, pace, weights = made()
    for loss in (3.0, 2.0, 5.0):
        step(way, pace, weights, loss)
    again, pace_again, weights_again = made()
    arrays = {name: array.copy() for name, array in way.arrays().items()}
    again.restore(json.loads(json.dumps(way.state())), arrays)
    assert again.state() == way.state()
    again.go_back(on_trial=True)
    assert weights_again.tolist() == [1.0]
    assert pace_again.num_steps == 0
