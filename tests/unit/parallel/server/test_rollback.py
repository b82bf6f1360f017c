from __future__ import annotations

import json

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.server.loss_monitor import LossMonitor
from distsgd.parallel.server.rollback import TRIAL_STEPS, Rollback


def step(way: Rollback, loss_monitor: LossMonitor, weights: Array, loss: float) -> None:
    """A step of mean loss `loss` that moves the weight by 1."""
    way.before_step()
    weights += 1.0
    mean = loss_monitor.note(loss)
    if mean is not None:
        way.after_window(mean)


def made(window: int = 1) -> tuple[Rollback, LossMonitor, Array]:
    loss_monitor, weights = LossMonitor.of(window), np.zeros(1)
    return Rollback(loss_monitor, {"weights": weights}), loss_monitor, weights


def test_good_weights_are_those_before_the_window_of_lowest_mean() -> None:
    way, loss_monitor, weights = made()
    for loss in (3.0, 2.0, 5.0, 7.0):
        step(way, loss_monitor, weights, loss)
    way.before_step()
    way.go_back(on_trial=True)
    assert weights.tolist() == [1.0]
    assert (way.halvings, way.factor) == (1, 0.5)


def test_run_that_diverges_in_its_first_window_rolls_back_to_its_start() -> None:
    way, loss_monitor, weights = made(10)
    for loss in (3.0, 30.0, 300.0):
        step(way, loss_monitor, weights, loss)
    way.before_step()
    way.go_back(on_trial=True)
    assert weights.tolist() == [0.0]
    assert (loss_monitor.num_steps, loss_monitor.loss_sum, loss_monitor.reference) == (0, 0.0, 0.0)
    assert not way.fails_trial(1e9)  # There is no window to be held against.


def test_trial_fails_when_no_window_is_lower() -> None:
    way, loss_monitor, weights = made()
    step(way, loss_monitor, weights, 2.0)
    way.go_back(on_trial=True)
    for _ in range(TRIAL_STEPS - 1):
        assert not way.fails_trial(2.0)
        step(way, loss_monitor, weights, 2.0)
    assert way.fails_trial(2.0)
    assert not way.fails_trial(1.9)
    way.go_back(on_trial=False)
    assert not way.fails_trial(2.0)


def test_trial_is_passed_by_one_lower_window() -> None:
    way, loss_monitor, weights = made()
    step(way, loss_monitor, weights, 2.0)
    way.go_back(on_trial=True)
    step(way, loss_monitor, weights, 1.9)
    for _ in range(2 * TRIAL_STEPS):
        assert not way.fails_trial(3.0)
        step(way, loss_monitor, weights, 3.0)


def test_restored_way_back_leads_to_the_same_place() -> None:
    way, loss_monitor, weights = made()
    for loss in (3.0, 2.0, 5.0):
        step(way, loss_monitor, weights, loss)
    again, pace_again, weights_again = made()
    arrays = {name: array.copy() for name, array in way.arrays().items()}
    again.restore(json.loads(json.dumps(way.state())), arrays)
    assert again.state() == way.state()
    again.go_back(on_trial=True)
    assert weights_again.tolist() == [1.0]
    assert pace_again.num_steps == 0
