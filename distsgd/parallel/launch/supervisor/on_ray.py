"""A run on Ray from the joining of it to the end: room for it is found, and it is supervised.

How Ray is started or joined: `session`. No arrays pass through it.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import Any

from distsgd.errors import ClusterError, HeadLostError
from distsgd.parallel.launch.actors.events import Delivery
from distsgd.parallel.launch.calls.calls import errors_of_ray
from distsgd.parallel.launch.nodes.check import check_nodes
from distsgd.parallel.launch.nodes.cluster import room_of
from distsgd.parallel.launch.nodes.placement import Placement, Room, Where
from distsgd.parallel.launch.session.import_path import refuse_shadowing
from distsgd.parallel.launch.session.session import session
from distsgd.parallel.launch.supervisor.supervisor import Supervisor
from distsgd.parallel.observer import Observer
from distsgd.parallel.server.spec import LOOK_S, Outcome, PoolSpec, ServerSpec, Watch
from distsgd.parallel.server.step_runner import NO_HOOKS, EventHooks

ROOM_TIMEOUT_S = 6.0


def train_on_ray(
    spec: ServerSpec,
    worker: str,
    watch: Watch,
    *,
    placement: Placement,
    hooks: EventHooks = NO_HOOKS,
    observer: Observer | None = None,
) -> Outcome:
    """Train with a server actor and worker actors; see `launch.launch`. The secret is made here.

    The steps do not wait for `hooks` unless these fall far behind. Where a server dies, events
    that it had not yet handed out may be missing. `observer` is the driver's.
    """
    refuse_shadowing(worker)
    wanted = spec.pool.num_workers
    with session(placement.address, num_cpus=(wanted or 0) + 1) as joined:
        room = None
        if not joined.is_local:
            room, wanted = _wait_for_room(joined.ray, placement, spec.pool)
            check_nodes(joined)
        is_shared = spec.pool.transport == "auto" and not joined.is_local
        pool = replace(
            spec.pool,
            num_workers=wanted,
            secret=secrets.token_bytes(32),
            host=spec.pool.host if joined.is_local else "",
            transport="zmq" if is_shared else spec.pool.transport,
        )
        spec = replace(spec, pool=pool, observed_events=hooks.events)
        supervisor = Supervisor(
            joined, spec, worker, where=Where(placement, room), observer=observer
        )
        try:
            delivery = Delivery(hooks.notify) if hooks.events else None
            return supervisor.run(watch, delivery)
        except HeadLostError as lost:
            raise supervisor.leave(lost) from None
        finally:
            supervisor.end()


def _wait_for_room(ray: Any, placement: Placement, pool: PoolSpec) -> tuple[Room, int]:
    """The room when there is enough for the run, and how many workers it will have.

    Raises:
        ClusterError: There is no room within `ROOM_TIMEOUT_S`, and nobody said that fewer will do.
    """
    deadline = time.monotonic() + ROOM_TIMEOUT_S
    while True:
        with errors_of_ray("looking for room on Ray"):
            room = room_of(ray)
        wanted = pool.num_workers or room.most_workers(placement)
        lack = room.says(placement, wanted)
        begins = pool.least_workers is not None or room.grows
        if not lack or (begins and room.takes(placement) >= (pool.least_workers or 1)):
            return room, wanted
        if time.monotonic() >= deadline:
            if begins:  # The server waits for the least of them, and says so.
                return room, wanted
            raise ClusterError(f"{lack}; {room.way_out(placement, wanted)}")
        time.sleep(LOOK_S)  # What ended a moment ago is free in a moment.
