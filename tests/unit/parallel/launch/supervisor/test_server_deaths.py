from __future__ import annotations

import pytest

from distsgd.base.random_keys import Purpose, uniform
from distsgd.parallel.launch.supervisor.server_deaths import ServerDeaths
from distsgd.parallel.pool.crash_loop import MAX_DEATHS

APART = 60  # Steps between two looks.


def die(deaths: ServerDeaths, step: int, *, start: int, offset: float) -> None:
    """A server that begins at `start` dies at `step`; the first look comes after `offset` looks."""
    for seen in range(start + int(offset * APART), step + 1, APART):
        deaths.looked(seen)
    deaths.died()


# A server that is not seen training, and then one that is, are at two places: it takes more deaths.
@pytest.mark.parametrize(
    ("start", "most"), [(0, MAX_DEATHS), (500, MAX_DEATHS), (690, 2 * MAX_DEATHS - 1)]
)
def test_deaths_at_one_step_end_the_run_whenever_it_was_looked_at(start: int, most: int) -> None:
    for offsets in uniform(0, Purpose.PROBE, count=50 * most).reshape(50, most):
        deaths, counts = ServerDeaths(), list[int]()
        for offset in offsets:
            die(deaths, 701, start=start, offset=float(offset))
            counts.append(deaths.count)
        assert max(counts) >= MAX_DEATHS


def test_deaths_farther_apart_than_two_looks_do_not_count_together() -> None:
    deaths = ServerDeaths()
    for offset, step in zip(
        uniform(0, Purpose.PROBE, count=5), (990, 600, 750, 880, 620), strict=True
    ):
        die(deaths, step, start=450, offset=float(offset))
        assert deaths.count == 1


def test_death_that_was_planned_does_not_count() -> None:
    deaths = ServerDeaths()
    for _ in range(MAX_DEATHS):
        deaths.looked(5)
        deaths.died(counts=False)
    assert deaths.count == 0
