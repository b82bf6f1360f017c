"""The number of workers as somebody wants it, and actors that follow it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distsgd.errors import RunError
from distsgd.parallel.cluster.fleet import FILE, GET_TIMEOUT_S, MISSING_S, Fleet, Wish
from distsgd.parallel.exchange.contract import Address

ADDRESS = Address("shared_memory", "nowhere", bytes(32), 0)


def test_wish_is_seen_once_and_file_is_private(tmp_path: Path) -> None:
    driver, other = Wish(tmp_path), Wish(tmp_path)
    driver.begin(2)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert driver.changed() is None
    assert other.ask(5) == 2
    assert driver.changed() == 5
    assert driver.changed() is None
    assert other.ask(0) == 5
    assert driver.changed() == 0
    driver.end()
    assert driver.changed() is None
    with pytest.raises(RunError, match="is not being trained"):
        other.ask(1)


@pytest.mark.parametrize("count", [-1, 4097])
def test_wish_out_of_bounds_is_refused(tmp_path: Path, count: int) -> None:
    Wish(tmp_path).begin(2)
    with pytest.raises(RunError, match="must be 0 to 4096"):
        Wish(tmp_path).ask(count)


def test_wish_of_a_run_whose_driver_died_is_refused(tmp_path: Path) -> None:
    Wish(tmp_path).begin(2)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    found = json.loads((tmp_path / FILE).read_text())
    for driver in (found["driver"] | {"pid": ended.pid}, {"pid": os.getpid(), "host": "?"}, None):
        (tmp_path / FILE).write_text(json.dumps(found | {"driver": driver}))
        with pytest.raises(RunError, match="no driver on this machine"):
            Wish(tmp_path).ask(3)


@pytest.mark.parametrize(
    "text", ["{", '{"wanted": "3"}', '{"wanted": 5000}', "[]", '{"wanted":true}']
)
def test_damaged_wish_is_named(tmp_path: Path, text: str) -> None:
    wish = Wish(tmp_path)
    wish.begin(1)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=FILE):
        wish.changed()
    assert wish.changed() is None


class FakeRay:
    """Actors whose service ends when the test says so."""

    class exceptions:  # noqa: N801 -- as in Ray.
        RayActorError = KeyError
        RayTaskError = LookupError
        GetTimeoutError = TimeoutError

    def __init__(self) -> None:
        self.made: list[FakeActor] = []
        self.killed: list[tuple[int, bool]] = []
        self.ended: dict[Any, BaseException | None] = {}

    def make(self) -> FakeActor:
        self.made.append(FakeActor(len(self.made)))
        return self.made[-1]

    def wait(self, refs: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], int]:
        assert refs
        assert (num_returns, timeout) == (len(refs), 0)
        return [ref for ref in refs if ref in self.ended], 0

    def get(self, ref: Any, *, timeout: float) -> None:
        assert 0 < timeout <= GET_TIMEOUT_S
        error = self.ended.pop(ref)
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
    ray = FakeRay()
    fleet = Fleet(ray, ray.make)
    fleet.scale(2)
    fleet.serve(ADDRESS)
    assert [actor.calls for actor in ray.made] == [1, 1]
    fleet.scale(3)
    assert [actor.calls for actor in ray.made] == [1, 1, 1]
    fleet.scale(1)
    assert sorted(ray.killed) == [(1, True), (2, True)]
    fleet.scale(0)
    fleet.look(())
    assert len(fleet) == 0
    fleet.scale(2)
    assert len(ray.made) == 5


def test_workers_that_came_back_are_sent_again_and_those_not_wanted_are_not() -> None:
    ray = FakeRay()
    fleet = Fleet(ray, ray.make)
    fleet.scale(2)
    fleet.serve(ADDRESS)
    ray.ended = {(0, 0, 0, 1): None, (1, 1, 0, 1): KeyError("its process ended")}
    fleet.look((0, 1))
    assert [actor.calls for actor in ray.made] == [2, 2]
    ray.ended = {(0, 0, 0, 2): TimeoutError("Ray does not give it out")}
    fleet.look((0, 1))
    assert [actor.calls for actor in ray.made] == [3, 2]
    fleet.scale(1)
    ray.ended = {(1, 1, 0, 2): KeyError("killed")}
    fleet.look((0,))
    assert [actor.calls for actor in ray.made] == [3, 2]


def test_worker_that_was_there_and_stays_away_is_ended() -> None:
    now = [0.0]
    ray = FakeRay()
    fleet = Fleet(ray, ray.make, clock=lambda: now[0])
    fleet.scale(3)
    fleet.serve(ADDRESS)
    fleet.look((0, 1))
    now[0] = MISSING_S + 1
    fleet.look((0,))
    assert ray.killed == [(1, False)]
    now[0] *= 2
    fleet.look((0,))
    assert ray.killed == [(1, False)]
