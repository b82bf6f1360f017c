from __future__ import annotations

import threading

import numpy as np
import pytest

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.launch.actors.events import MOST_WAITING, Delivery, EventQueue
from distsgd.parallel.server.step_runner import EpochEnd, Event, EventHooks, StepView
from distsgd.store.logs import EvaluationRow


def view(step: int) -> StepView:
    return StepView(step, {}, np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), 0.0)


def test_events_come_out_in_order_through_a_full_queue() -> None:
    queue, taken = EventQueue(20.0), list[int]()
    steps = 5 * MOST_WAITING

    def put_all() -> None:
        for step in range(steps):
            queue.put(view(step))

    thread = threading.Thread(target=put_all, daemon=True)
    thread.start()
    while len(taken) < steps:
        views = queue.take(20.0)
        assert 0 < len(views) <= MOST_WAITING
        taken += [found.step for found in views]
    thread.join(20)
    assert taken == list(range(steps))
    assert queue.take(0.0) == []


def test_driver_that_does_not_take_events_is_named() -> None:
    queue = EventQueue(0.01)
    for step in range(MOST_WAITING):
        queue.put(view(step))
    with pytest.raises(WaitTimeoutError, match=rf"the driver .* before step {MOST_WAITING}"):
        queue.put(view(MOST_WAITING))


def test_closed_queue_forgets_and_never_waits() -> None:
    queue = EventQueue(0.01)
    for step in range(MOST_WAITING):
        queue.put(view(step))
    queue.close()
    for step in range(2 * MOST_WAITING):
        queue.put(view(step))
    assert queue.take(0.0) == []


def test_steps_that_a_new_server_redoes_are_delivered_once() -> None:
    seen: list[int] = []
    delivery = Delivery(lambda found: seen.append(found.step))
    assert delivery.deliver([view(0), view(1), view(1), view(2)], 0)  # Step 1 went back.
    assert delivery.deliver([view(1), view(2)], 1)
    assert delivery.deliver([view(3), view(3), view(4)], 1)
    assert seen == [0, 1, 1, 2, 3, 3, 4]
    delivery.end()


def test_callback_that_raises_is_left_alone_and_its_error_comes_out_at_the_end() -> None:
    seen: list[int] = []

    def look(found: Event) -> None:
        seen.append(found.step)
        if found.step == 1:
            raise KeyError

    delivery = Delivery(look)
    assert not delivery.deliver([view(0), view(1), view(2)], 0)
    assert not delivery.deliver([view(3)], 0)
    assert seen == [0, 1]
    with pytest.raises(KeyError):
        delivery.end()


def test_events_of_one_step_that_a_new_server_redoes_are_delivered_once() -> None:
    end, row = EpochEnd(2, 1, 0.5), EvaluationRow(2, 1.0, 0.5, None, 4)
    seen: list[Event] = []
    delivery = Delivery(seen.append)
    assert delivery.deliver([view(1), end], 0)
    assert delivery.deliver([view(0), view(1), end, row, view(2)], 1)
    assert [type(event).__name__ for event in seen] == [
        "StepView",
        "EpochEnd",
        "EvaluationRow",
        "StepView",
    ]


def test_only_what_is_observed_is_called() -> None:
    seen: list[EpochEnd] = []
    hooks = EventHooks(on_epoch_end=seen.append)
    hooks.notify(view(0))
    hooks.notify(EpochEnd(2, 1, 0.5))
    assert hooks.events == ("on_epoch_end",)
    assert seen == [EpochEnd(2, 1, 0.5)]
