"""Who is started when, and what becomes of those that cannot be. Ray is a fake; nothing starts."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from distsgd.errors import ClusterError
from distsgd.parallel.launch.actors.processes import RunNotSeenError, WorkerStartError
from distsgd.parallel.launch.nodes.placement import Node, Placement, Room, Where
from distsgd.parallel.launch.session.session import Session
from distsgd.parallel.launch.supervisor.supervisor import Supervisor
from distsgd.parallel.observer import Observer
from distsgd.parallel.pool.crash_loop import MAX_DEATHS
from distsgd.parallel.transport.interface import Address


def room_of(*free: int) -> Room:
    """Nodes with so many free CPUs; the first is the driver's."""
    nodes = [Node(f"{i}", f"n{i}", {"CPU": 4.0}, {"CPU": float(it)}) for i, it in enumerate(free)]
    return Room(nodes, "0")


ROOM = room_of(1, 2)


class RayActorError(Exception):
    actor_init_failed = False


class GetTimeoutError(Exception):
    pass


class ActorUnavailableError(RayActorError):
    pass


class FakeRay:
    """Actors that answer as the test says; training ends when there is nothing left to look at."""

    exceptions = types.SimpleNamespace(
        RayActorError=RayActorError,
        GetTimeoutError=GetTimeoutError,
        ActorUnavailableError=ActorUnavailableError,
    )
    util = types.SimpleNamespace(
        scheduling_strategies=types.SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft)
        )
    )

    def __init__(
        self, phases: tuple[str, ...] = (), deaths: int = 0, dies_at: Sequence[Sequence[int]] = ()
    ) -> None:
        self.events: list[str] = []
        self.cpus: dict[str, int] = {}
        self.servers: list[tuple[str, int]] = []  # The node that each was to be on, and its CPUs.
        self.dying: list[str] = []  # Nodes that go with the next server.
        self._dead: list[str] = []
        self.notes: list[str] = []
        self.expected: list[tuple[int, bool]] = []  # Workers, and whether some have no room.
        self.num_blind = 0  # Nodes that do not see the run.
        self.worker_error: Exception | None = None
        self._phases, self._deaths = list(phases), deaths
        self._dies_at = list(dies_at)  # The steps that are seen before each death.
        self.is_to_stop = False  # Was the first server asked to stop, from elsewhere?

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": node, "Alive": False} for node in self._dead]

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(get_node_id=lambda: "here")

    def remote(self, *, num_cpus: int, **_: object) -> Callable[[type], Any]:
        def made(kind: type) -> Any:
            def options(*, num_cpus: int = num_cpus, **more: Any) -> Any:
                self.cpus[kind.__name__] = num_cpus
                if strategy := more.get("scheduling_strategy"):
                    self.servers.append((strategy[0], num_cpus))
                return types.SimpleNamespace(remote=lambda *_, **__: self._actor(kind.__name__))

            return types.SimpleNamespace(remote=options().remote, options=options)

        return made

    def _actor(self, kind: str) -> Any:
        self.events.append(f"{kind} is made")
        return FakeActor(kind)

    def get(self, ref: tuple[str, str, Any], *, timeout: float) -> Any:
        assert timeout > 0
        kind, method, arguments = ref
        if kind == "WorkerActor":
            assert self.worker_error is not None
            raise self.worker_error
        return getattr(self, f"_{method}")(*arguments)

    def _address(self) -> Address:
        if self.num_blind:
            self.num_blind -= 1
            raise RunNotSeenError("n1", "run")
        if self._deaths:
            self._deaths -= 1
            raise RayActorError("its process was killed")
        if self._dies_at:
            self._phases = ["training"] * len(self._dies_at[0])
        self.events.append("the server is ready")
        return Address("zmq", "here", bytes(32), 0)

    def _status(self, known: int) -> Any:
        step = self._dies_at[0][-len(self._phases)] if self._dies_at else 1
        phase = self._phases.pop(0) if self._phases else "ended"
        return types.SimpleNamespace(
            phase=phase,
            step=step,
            members=(),
            num_messages=known,
            wanted=(),
            is_to_stop=self.is_to_stop and self.events.count("ServerActor is made") == 1,
        )

    def _request_stop(self) -> None:
        made = self.events.count("ServerActor is made")
        if (said := f"server {made} is to stop") not in self.events:
            self.events.append(said)

    def _note(self, message: str) -> None:
        self.notes.append(message)

    def _expect(self, num_workers: int, lack: str) -> None:
        self.expected.append((num_workers, bool(lack)))

    def _train(self) -> str:
        if self._dies_at:
            self._dies_at.pop(0)
            self._dead += self.dying
            raise RayActorError("its process was killed")
        return "the outcome"

    def wait(
        self, refs: list[tuple[str, str, Any]], *, num_returns: int, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        assert num_returns == len(refs)
        assert timeout >= 0
        has_ended = {"ServerActor": not self._phases, "WorkerActor": self.worker_error is not None}
        return [ref for ref in refs if has_ended[ref[0]]], []

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.events.append(f"{actor.kind} is ended")


class FakeActor:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: object) -> tuple[str, str, object]:
            return (self.kind, method, arguments)

        return types.SimpleNamespace(
            remote=call, options=lambda **_: types.SimpleNamespace(remote=call)
        )


class Reaper(Observer):
    """The cause of each death of a server."""

    def __init__(self, ray: FakeRay) -> None:
        self._ray = ray

    def planned_server_deaths(self) -> int:
        return self._ray.events.count("ServerActor is made")


def supervisor_of(
    ray: FakeRay, run: Path, room: Room | None, observer: Observer | None = None
) -> Supervisor:
    spec: Any = types.SimpleNamespace(
        pool=types.SimpleNamespace(num_workers=2, secret=bytes(32)),
        record=types.SimpleNamespace(run=run),
        worker=None,
        observer=None,
    )
    where = Where(Placement("auto"), room)
    joined = Session(ray, is_local=room is None)
    return Supervisor(joined, spec, "module:Worker", where=where, observer=observer)


def run(ray: FakeRay, place: Path, room: Room | None = ROOM) -> Any:
    return supervisor_of(ray, place, room).run(lambda _: False, None)


def test_server_is_ready_before_a_worker_is_placed_in_a_cluster(tmp_path: Path) -> None:
    ray = FakeRay()
    assert run(ray, tmp_path) == "the outcome"
    made = ["ServerActor is made", "the server is ready", *["WorkerActor is made"] * 2]
    assert ray.events == made
    assert ray.cpus == {"ServerActor": 1, "WorkerActor": 1}
    assert ray.notes == []


def test_workers_start_beside_the_server_on_a_ray_of_our_own(tmp_path: Path) -> None:
    ray = FakeRay()
    run(ray, tmp_path, room=None)
    made = ["ServerActor is made", *["WorkerActor is made"] * 2, "the server is ready"]
    assert ray.events == made
    assert ray.cpus == {"ServerActor": 1, "WorkerActor": 0}


@pytest.mark.parametrize("room", [ROOM, None])
def test_workers_start_once_also_where_the_first_servers_died(
    tmp_path: Path, room: Room | None
) -> None:
    ray = FakeRay(deaths=MAX_DEATHS - 1)
    assert run(ray, tmp_path, room) == "the outcome"
    assert ray.events.count("WorkerActor is made") == 2
    assert ray.events.count("ServerActor is made") == MAX_DEATHS


def test_server_that_follows_another_is_not_locked_out_by_workers(tmp_path: Path) -> None:
    ray = FakeRay(dies_at=[[1]])
    ray.dying = ["1"]
    assert run(ray, tmp_path, room_of(0, 4, 3)) == "the outcome"
    assert ray.servers == [("1", 1), ("2", 0)]
    assert ray.expected == [(2, False)] * 2  # It knows how many there are to be.


def test_stop_that_a_server_was_asked_for_is_kept_when_it_dies(tmp_path: Path) -> None:
    ray = FakeRay(dies_at=[[5, 6]])
    ray.is_to_stop = True
    assert run(ray, tmp_path) == "the outcome"
    assert [it for it in ray.events if it.endswith("is to stop")] == [
        "server 1 is to stop",
        "server 2 is to stop",
    ]


def test_server_that_never_comes_up_ends_the_run_with_rays_reason(tmp_path: Path) -> None:
    ray = FakeRay(deaths=MAX_DEATHS)
    with pytest.raises(ClusterError, match="died 3 times while it started: its process was"):
        run(ray, tmp_path)


def looks(*last: int, apart: int, start: int = 500) -> list[range]:
    """What is seen of servers that begin at `start` and are at `last` when they are seen last."""
    return [range(start + (step - start) % apart, step + 1, apart) for step in last]


def test_server_that_dies_at_one_step_ends_the_run_wherever_it_was_seen_last(
    tmp_path: Path,
) -> None:
    ray = FakeRay(dies_at=looks(690, 650, 700, 699, apart=60))
    with pytest.raises(ClusterError, match="died 3 times before step 701"):
        run(ray, tmp_path)


def test_server_that_dies_soon_and_is_seen_once_each_time_ends_the_run(tmp_path: Path) -> None:
    ray = FakeRay(dies_at=[[510], [540], [503]])
    with pytest.raises(ClusterError, match="died 3 times before step 541"):
        run(ray, tmp_path)


def test_server_that_dies_so_soon_that_it_is_not_seen_dies_where_the_last_did(
    tmp_path: Path,
) -> None:
    ray = FakeRay(dies_at=[[500, 505, 510], [], []])
    with pytest.raises(ClusterError, match="died 3 times before step 511"):
        run(ray, tmp_path)


def test_deaths_at_other_steps_of_one_stretch_are_no_crash_loop(tmp_path: Path) -> None:
    ray = FakeRay(dies_at=looks(1000, 600, 700, 800, 650, apart=50))
    assert run(ray, tmp_path) == "the outcome"


def test_server_that_gets_further_after_each_death_is_no_crash_loop(tmp_path: Path) -> None:
    ray = FakeRay(dies_at=looks(710, 711, 712, 713, apart=1))
    assert run(ray, tmp_path) == "the outcome"


def test_deaths_that_the_observer_planned_are_no_crash_loop(tmp_path: Path) -> None:
    ray = FakeRay(deaths=MAX_DEATHS + 2)
    outcome: Any = supervisor_of(ray, tmp_path, ROOM, Reaper(ray)).run(lambda _: False, None)
    assert outcome == "the outcome"
    assert ray.events.count("ServerActor is made") == MAX_DEATHS + 3


def test_workers_without_room_are_told_of(tmp_path: Path) -> None:
    ray = FakeRay()
    run(ray, tmp_path, room_of(1))
    assert ray.cpus["ServerActor"] == 0
    assert ray.expected == [(2, True)]
    (note,) = ray.notes
    assert "2 workers need 2 CPU; there are 1 of 4 free (node n0 1)" in note
    assert "the others join when there is room for them" in note


def test_server_comes_back_to_the_drivers_node_where_another_does_not_see_the_run(
    tmp_path: Path,
) -> None:
    ray = FakeRay()
    ray.num_blind = 1
    assert run(ray, tmp_path, room_of(0, 3)) == "the outcome"
    assert ray.cpus["ServerActor"] == 0
    begun = ["ServerActor is made", "ServerActor is ended", "ServerActor is made"]
    assert ray.events[:4] == [*begun, "the server is ready"]


def test_run_that_no_node_sees_ends_with_the_name_of_one(tmp_path: Path) -> None:
    ray = FakeRay()
    ray.num_blind = 2
    with pytest.raises(RunNotSeenError, match="node n1 does not see the run directory run"):
        run(ray, tmp_path, room_of(0, 3))


def test_worker_that_cannot_start_ends_a_run_that_waits_for_it(tmp_path: Path) -> None:
    ray = FakeRay(phases=("starting", "starting"))
    ray.worker_error = WorkerStartError(0, "host", "ValueError: no such thing")
    with pytest.raises(WorkerStartError, match="on node host: ValueError: no such thing"):
        run(ray, tmp_path)


def test_run_that_has_begun_goes_on_without_a_worker_that_cannot_start(tmp_path: Path) -> None:
    ray = FakeRay(phases=("training", "training"))
    ray.worker_error = WorkerStartError(0, "host", "ValueError: no such thing")
    assert run(ray, tmp_path) == "the outcome"
    assert ray.notes == [f"{ray.worker_error}; the run continues without it"] * 2
    assert ray.events.count("WorkerActor is ended") == 2
