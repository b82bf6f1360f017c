"""Actors of workers that follow the number that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from distsgd.errors import ShardError, WaitTimeoutError
from distsgd.parallel.launch.actors.processes import WorkerStartError
from distsgd.parallel.launch.actors.worker_actors import (
    GET_TIMEOUT_S,
    MAX_START_DEATHS,
    MISSING_S,
    WorkerActors,
)
from distsgd.parallel.launch.calls.calls import ActorDied, ActorInitError, ActorUnavailable, Calls
from distsgd.parallel.transport.interface import Address

ADDRESS = Address("shared_memory", "nowhere", bytes(32), 0)


class FakeCalls(Calls):
    """Actors whose service ends when the test says so."""

    def __init__(self) -> None:
        super().__init__(None)
        self.made: list[FakeActor] = []
        self.killed: list[tuple[int, bool]] = []
        self.finished: dict[Any, Exception | None] = {}

    def make(self) -> FakeActor:
        self.made.append(FakeActor(len(self.made)))
        return self.made[-1]

    def ended(
        self, refs: Sequence[Any], timeout_s: float, *, at_most: int | None = None
    ) -> list[Any]:
        assert (timeout_s, at_most) == (0, None)
        return [ref for ref in refs if ref in self.finished]

    def get(self, ref: Any, waited_for: str, timeout_s: float) -> None:
        assert f"worker {ref[1]}" in waited_for
        assert 0 < timeout_s <= GET_TIMEOUT_S
        error = self.finished.pop(ref)
        if error is not None:
            raise error

    def kill(self, actor: FakeActor, *, no_restart: bool = True) -> None:
        self.killed.append((actor.index, no_restart))


class FakeActor:
    def __init__(self, index: int) -> None:
        self.index, self.calls = index, 0

    @property
    def serve(self) -> FakeActor:
        return self

    def remote(self, address: Address, number: int) -> tuple[int, int, int, int]:
        self.calls += 1
        return (self.index, number, address.incarnation, self.calls)


def test_fleet_follows_the_number_up_and_down() -> None:
    calls = FakeCalls()
    worker_actors = WorkerActors(calls, calls.make)
    worker_actors.scale(2)
    worker_actors.serve(ADDRESS)
    assert [actor.calls for actor in calls.made] == [1, 1]
    worker_actors.scale(3)
    assert [actor.calls for actor in calls.made] == [1, 1, 1]
    worker_actors.scale(1)
    assert sorted(calls.killed) == [(1, True), (2, True)]
    worker_actors.scale(0)
    worker_actors.look(())
    assert len(worker_actors) == 0
    worker_actors.scale(2)
    assert len(calls.made) == 5


def test_workers_that_came_back_are_sent_again_and_those_not_wanted_are_not() -> None:
    calls = FakeCalls()
    worker_actors = WorkerActors(calls, calls.make)
    worker_actors.scale(2)
    worker_actors.serve(ADDRESS)
    calls.finished = {(0, 0, 0, 1): None, (1, 1, 0, 1): ActorDied("its process ended")}
    worker_actors.look((0, 1))
    assert [actor.calls for actor in calls.made] == [2, 2]
    calls.finished = {(0, 0, 0, 2): WaitTimeoutError("what Ray does not give out", 1.0)}
    worker_actors.look((0, 1))
    assert [actor.calls for actor in calls.made] == [3, 2]
    worker_actors.scale(1)
    calls.finished = {(1, 1, 0, 2): ActorDied("killed")}
    worker_actors.look((0,))
    assert [actor.calls for actor in calls.made] == [3, 2]


def test_worker_that_was_there_and_stays_away_is_ended() -> None:
    now = [0.0]
    calls = FakeCalls()
    worker_actors = WorkerActors(calls, calls.make, clock=lambda: now[0])
    worker_actors.scale(3)
    worker_actors.serve(ADDRESS)
    worker_actors.look((0, 1))
    now[0] = MISSING_S + 1
    worker_actors.look((0,))
    assert calls.killed == [(1, False)]
    now[0] *= 2
    worker_actors.look((0,))
    assert calls.killed == [(1, False)]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WorkerStartError(1, "host", "it is odd"), "cannot be started on node host: it is odd"),
        (ActorInitError("no distsgd there"), "cannot be started: no distsgd there"),
    ],
)
def test_worker_that_cannot_be_made_is_told_of_and_given_up(error: Exception, text: str) -> None:
    calls = FakeCalls()
    worker_actors = WorkerActors(calls, calls.make)
    worker_actors.scale(2)
    worker_actors.serve(ADDRESS)
    calls.finished = {(1, 1, 0, 1): error}
    assert [str(failure) for failure in worker_actors.look((0,))] == [f"worker 1 {text}"]
    assert (len(worker_actors), calls.killed) == (1, [(1, True)])
    assert worker_actors.look((0,)) == []
    worker_actors.scale(2)
    assert len(calls.made) == 3


def test_worker_whose_process_dies_again_and_again_before_it_was_there_is_given_up() -> None:
    calls = FakeCalls()
    worker_actors = WorkerActors(calls, calls.make)
    worker_actors.scale(2)
    worker_actors.serve(ADDRESS)
    for death in range(1, MAX_START_DEATHS + 1):
        calls.finished = {
            (0, 0, 0, death): ActorUnavailable("exit code 9"),
            (1, 1, 0, death): ActorDied("exit code 9"),
        }
        failures = worker_actors.look((1,) if death == 1 else ())
    (failure,) = failures
    assert str(failure).startswith("worker 0 cannot be started: its process died 3 times")
    assert str(failure).endswith("exit code 9")
    assert (
        len(worker_actors) == 1
    )  # Number 1 was there once: its machine may be at fault, and come back.


def test_error_that_a_worker_raises_while_it_serves_ends_the_run() -> None:
    calls = FakeCalls()
    worker_actors = WorkerActors(calls, calls.make)
    worker_actors.scale(1)
    worker_actors.serve(ADDRESS)
    calls.finished = {(0, 0, 0, 1): ShardError("x.arrow", "is damaged")}
    with pytest.raises(ShardError, match="is damaged"):
        worker_actors.look((0,))
