"""The nodes of a Ray, asked what is on them: can they train together, and how fast are they?"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distsgd import __version__
from distsgd.errors import ClusterError, WaitTimeoutError
from distsgd.parallel import numerics
from distsgd.parallel.launch.calls.calls import Calls, errors_of_ray
from distsgd.parallel.launch.nodes import ask_node
from distsgd.parallel.launch.session.import_path import refuse_shadowing
from distsgd.parallel.launch.session.session import Session, session

START_TIMEOUT_S = 120.0
NODE_TIMEOUT_S = 30.0  # A process on a node that has started none yet.
LOOK_S = 1.0  # How often it is looked meanwhile whether there still is a cluster.
GET_TIMEOUT_S = 10.0  # What is fetched is there already.
CHECK_TIMEOUT_S = 10.0  # Before a run; a node that is slower is not asked again.


@dataclass(frozen=True, slots=True)
class Node:
    """A living node.

    Attributes:
        name: As the node calls itself.
        address: Its IP address.
        cpus: As Ray counts them.
        memory_gib: That Ray gives out there.
        distsgd, python, ray, numpy: Versions; "" where that is not known.
        niceness: Of the processes that Ray starts there; None: not known.
        clock_s: By how much its clock is ahead of this one; None: not known.
        bits: Nodes in which these are equal compute the same bits.
        arithmetic: What it computes with, for people.
        error: Why it cannot be used; None where it can.
    """

    name: str
    address: str
    cpus: int
    memory_gib: float
    distsgd: str = ""
    python: str = ""
    ray: str = ""
    numpy: str = ""
    niceness: int | None = None
    clock_s: float | None = None
    bits: str = ""
    arithmetic: str = ""
    error: str | None = None


def examine_cluster(address: str) -> list[Node]:
    """Join the Ray at `address` and ask each of its nodes; blocks for some seconds.

    Raises:
        ClusterError: There is none, or it does not answer.
    """
    with session(address, num_cpus=0) as joined:
        return _nodes(joined, NODE_TIMEOUT_S)


def _nodes(joined: Session, timeout_s: float) -> list[Node]:
    """The living nodes, each asked in a process of its own there, all at once."""
    ray = joined.ray
    with errors_of_ray("asking the nodes of the cluster"):
        ray.cloudpickle.register_pickle_by_value(ask_node)
        try:
            asked = [(node, _ask(ray, node["NodeID"])) for node in ray.nodes() if node["Alive"]]
        finally:
            ray.cloudpickle.unregister_pickle_by_value(ask_node)
    calls = Calls(ray, joined.head)
    came_s = arrivals(calls, [ref for _, ref in asked], timeout_s)
    return [node_of(calls, node, ref, came_s.get(ref), timeout_s) for node, ref in asked]


def arrivals(
    calls: Calls,
    refs: Sequence[Any],
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.time,
) -> dict[Any, float]:
    """When the answer of each of `refs` came, by `clock`; blocks up to `timeout_s` seconds.

    Raises:
        HeadLostError: There is no cluster any more.
    """
    came_s: dict[Any, float] = {}
    waiting, deadline = list(refs), time.monotonic() + timeout_s
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for ref in calls.ended(waiting, min(left_s, LOOK_S), at_most=1):
            came_s[ref] = clock()
            waiting.remove(ref)
        calls.check_head()
    return came_s


def _ask(ray: Any, node_id: str) -> Any:
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {
        "num_cpus": 0,
        "max_retries": 0,
        "scheduling_strategy": there,
        "runtime_env": {"env_vars": numerics.environment()},
    }
    return ray.remote(**options)(ask_node.look_around).remote("float32")


def node_of(
    calls: Calls, node: dict[str, Any], ref: Any, came_s: float | None, timeout_s: float
) -> Node:
    """A node from what Ray says of it and from its own answer.

    Args:
        calls: What is asked of Ray.
        node: Ray's words.
        ref: Of its answer.
        came_s: When that came, in seconds since 1970; None: not within `timeout_s` seconds.
        timeout_s: See there.
    """
    resources = node["Resources"]
    known = {
        "name": node["NodeManagerHostname"],
        "address": node["NodeManagerAddress"],
        "cpus": int(resources.get("CPU", 0)),
        "memory_gib": round(resources.get("memory", 0.0) / 2**30, 1),
    }
    waited_for = f"node {known['name']} to say what is on it"
    if came_s is None:
        return Node(**known, error=str(WaitTimeoutError(waited_for, timeout_s)))
    try:
        said = calls.get(ref, waited_for, GET_TIMEOUT_S)
    except ClusterError as error:
        return Node(**known, error=str(error))
    ahead_s = round(said.pop("time_s") - came_s, 1)
    return Node(**(known | {"name": said.pop("node")}), **said, clock_s=ahead_s)


def differences(nodes: Sequence[Node]) -> Iterator[str]:
    """Why nodes cannot take part in a run of this process; nothing for those that can."""
    python = platform.python_version_tuple()[:2]
    for node in nodes:
        if node.error is not None and not node.distsgd:
            yield f"node {node.name}: {node.error}"
        elif node.distsgd and node.distsgd != __version__:
            yield f"node {node.name} has distsgd {node.distsgd}, this process {__version__}"
        elif node.python and tuple(node.python.split(".")[:2]) != python:
            own = platform.python_version()
            yield f"node {node.name} has Python {node.python}, this process {own}"


def check_nodes(joined: Session) -> None:
    """Make sure that the nodes with CPUs that answer in time have what this process has.

    Raises:
        ClusterError: One has not; names it, what it has, and what this process has.
    """
    nodes = _nodes(joined, CHECK_TIMEOUT_S)
    found = list(differences([node for node in nodes if node.cpus and node.python]))
    if found:
        raise ClusterError(
            f"{'; '.join(found)}; install the same Python, Ray and distsgd on every node, or name "
            "an image or a runtime environment that has them"
        )


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
