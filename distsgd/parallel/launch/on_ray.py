"""Ray: it places, starts and supervises the server and the workers, and hands out the run's secret.

No arrays go through it.

How Ray is started or joined: `session`; how the processes are kept up: `supervisor`.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import replace

from distsgd.parallel.launch.calls import Calls, errors_of_ray
from distsgd.parallel.launch.event_queue import Delivery
from distsgd.parallel.launch.import_path import refuse_shadowing
from distsgd.parallel.launch.session import session
from distsgd.parallel.launch.supervisor import START_TIMEOUT_S, Supervisor
from distsgd.parallel.observer import Observer
from distsgd.parallel.server.metrics import Outcome
from distsgd.parallel.server.spec import ServerSpec, Watch
from distsgd.parallel.server.step_runner import NO_OBSERVERS, Observers


def train_on_ray(
    spec: ServerSpec,
    worker: str,
    watch: Watch,
    *,
    address: str,
    observers: Observers = NO_OBSERVERS,
    observer: Observer | None = None,
) -> Outcome:
    """Train with a server actor and worker actors; blocks, and calls `watch` now and then.

    Args:
        spec: The run; its secret is made here.
        worker: The worker class, as ``module:class``.
        watch: Is shown where the run is.
        address: "local" for a Ray of our own, "auto" for the one that runs here, or host:port.
        observers: Called with the events of the loop, in order, in this thread; the steps do not
            wait for that unless it falls far behind. Where a server dies, events that it had not
            yet handed out may be missing.
        observer: The driver's.

    Raises:
        ClusterError: Ray cannot be started or joined, or its processes do not come up or stay up.
        DistSGDError: What `ParameterServer.train` raises.
    """
    refuse_shadowing(worker)
    with session(address, num_cpus=spec.pool.num_workers + 1) as joined:
        is_shared = spec.pool.transport == "auto" and not joined.is_local
        pool = replace(
            spec.pool,
            secret=secrets.token_bytes(32),
            host=joined.host,
            transport="zmq" if is_shared else spec.pool.transport,
        )
        spec = replace(spec, pool=pool, observed=observers.observed)
        supervisor = Supervisor(joined, spec, worker, observer=observer)
        try:
            delivery = Delivery(observers.notify) if observers.observed else None
            return supervisor.run(watch, delivery)
        finally:
            supervisor.end()


def examine_ray() -> dict[str, float]:
    """Start a Ray of our own and end it: how long that takes, and how nice its workers are.

    Raises:
        ClusterError: It does not start, or does not answer.
    """
    refuse_shadowing(__name__)
    started = time.monotonic()
    with session("local", num_cpus=1) as joined:
        start_s = time.monotonic() - started
        with errors_of_ray("starting a process on Ray"):
            ref = joined.ray.remote(_niceness).remote()
        found = Calls(joined.ray).get(ref, "a process on Ray", START_TIMEOUT_S)
    return {"ray_start_s": round(start_s, 2), "worker_niceness": found}


def _niceness() -> int:
    return os.nice(0)
