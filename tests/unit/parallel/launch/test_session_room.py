"""CPUs of a Ray: who gets one, and who waits."""

from __future__ import annotations

import pytest

from distsgd.parallel.launch.session import Room


@pytest.mark.parametrize(
    ("room", "num_workers", "cpus"),
    [
        (Room(total=3, free=3, free_here=3), 2, 1),
        (Room(total=2, free=2, free_here=2), 2, 0),  # It would cost the run a worker.
        (Room(total=9, free=9, free_here=0), 2, 0),  # A head without CPUs, or a busy one.
        (Room(total=0, free=0, free_here=0), 1, 0),
    ],
)
def test_server_takes_a_cpu_where_that_costs_no_worker(
    room: Room, num_workers: int, cpus: int
) -> None:
    assert room.server_cpus(num_workers) == cpus


def test_workers_without_room_are_told_of() -> None:
    room = Room(total=4, free=1, free_here=1)
    assert room.who_waits(1) == ""
    said = room.who_waits(3)
    assert "3 workers are wanted" in said
    assert "Ray has 4 CPUs; 1 were free, 1 on this node; 2 of them wait" in said
    assert "--workers" in said
