from __future__ import annotations

from typing import Any

import pytest

from distsgd.errors import CheckpointError
from distsgd.parallel.server.saved_state import check_state

LIKE = {
    "step": 0,
    "sums": [0, 0.0],
    "noise": {"decay": 0.99},
    "gradient_converged": False,
    "loss_monitor": {"window": 5, "first_mean": None},
    "rollback": None,
    "digest": "00",
}
GOOD = {
    "step": 7,
    "sums": [3, 1],
    "noise": {"decay": 0.5},
    "gradient_converged": True,
    "loss_monitor": {"window": 5, "first_mean": 0.25},
    "rollback": {"halvings": 2, "good_mean": None},
    "digest": "ab",
}


def test_state_of_this_program_is_taken() -> None:
    check_state(GOOD, like=LIKE)
    check_state(LIKE, like=LIKE)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": -1}, "state.step is -1; must be an integer, 0 or more"),
        ({"step": True}, "state.step is True"),
        ({"step": 1.5}, "state.step is 1.5"),
        ({"step": 10**400}, "state.step is too large"),
        ({"sums": [1]}, "must be a list of 2 numbers"),
        ({"sums": [1, "x"]}, r"state.sums\[1\] is 'x'; must be a finite number"),
        ({"sums": [1, 10**400]}, r"state.sums\[1\] is too large"),
        ({"noise": None}, "state.noise is None; must be an object with decay"),
        ({"noise": {"decay": None}}, "state.noise.decay is None"),
        ({"gradient_converged": 1}, "must be true or false"),
        (
            {"loss_monitor": {"window": 0, "first_mean": None}},
            "state.loss_monitor.window is 0; must be 5",
        ),
        ({"loss_monitor": {"window": 5}}, "must be an object with window, first_mean"),
        ({"loss_monitor": {"window": 5, "first_mean": []}}, "must be a finite number or null"),
        ({"rollback": {"halvings": "2"}}, "state.rollback.halvings is '2'"),
        ({"digest": None}, "state.digest is None; must be text"),
    ],
)
def test_state_that_is_forged_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        check_state(GOOD | change, like=LIKE)


@pytest.mark.parametrize("state", [None, [], "x", {}, GOOD | {"more": 1}])
def test_state_that_is_another_thing_is_refused(state: Any) -> None:
    with pytest.raises(CheckpointError, match="must be an object with step"):
        check_state(state, like=LIKE)
