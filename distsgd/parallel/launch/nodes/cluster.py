"""The nodes of the Ray that this process has joined: their room, and which are about to go."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import Any

from distsgd.parallel.launch.calls.calls import errors_of_ray
from distsgd.parallel.launch.calls.head_watch import HeadWatch
from distsgd.parallel.launch.nodes.placement import Node, Room

DRAINING_EVERY_S = 2.0


def room_of(ray: Any) -> Room:
    """The room on the Ray that this process has joined."""
    # Publicly, Ray tells of all nodes together only what they have free.
    state = _state()
    free, draining = state.available_resources_per_node(), state.get_draining_nodes()
    nodes = [
        Node(
            it["NodeID"],
            it["NodeManagerHostname"],
            it["Resources"],
            free.get(it["NodeID"], {}),
            it.get("Labels") or {},
            it["NodeID"] in draining,
        )
        for it in ray.nodes()
        if it["Alive"]
    ]
    return Room(nodes, ray.get_runtime_context().get_node_id(), _grows(state))


def _grows(state: Any) -> bool:
    """Does an autoscaler add nodes: KubeRay's, or that of `ray up`, which tells the types it knows?

    Each Ray has a monitor that tells of nodes; alone, it makes each a type of its own.
    """
    kv = importlib.import_module("ray.experimental.internal_kv")
    utils = importlib.import_module("ray.autoscaler.v2.utils")
    constants = importlib.import_module("ray._private.ray_constants")
    if state.get_max_resources_from_cluster_config() or utils.is_autoscaler_v2(True):
        return True
    told = json.loads(kv._internal_kv_get(constants.DEBUG_AUTOSCALING_STATUS) or b"{}")  # noqa: SLF001 -- no public name.
    types = (told.get("autoscaler_report") or {}).get("active_nodes") or {}
    return any(not name.startswith("node_") for name in types)


class Cluster:
    """The joined Ray while a run is on it: which nodes are about to go, and what runs where.

    Args:
        ray: The module.
        head: Asked first: Ray's calls to a head that is gone do not end.
        clock: Seconds.

    Attributes:
        draining: The nodes that are known to be about to go, by id.
    """

    def __init__(
        self,
        ray: Any,
        head: HeadWatch | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ray, self._head, self._clock = ray, head, clock
        self._looked_s = clock()
        self.draining: set[str] = set()

    def room(self) -> Room | None:
        """The room that there is now; None where the head does not answer."""
        if self._head is not None and not self._head.answers():
            return None
        with errors_of_ray("looking for room on Ray"):
            return room_of(self._ray)

    def newly_draining(self) -> dict[str, str]:
        """Host names by id of the nodes that were not known to be; asks Ray now and then only."""
        if self._clock() - self._looked_s < DRAINING_EVERY_S:
            return {}
        self._looked_s = self._clock()
        if self._head is not None and not self._head.answers():
            return {}
        with errors_of_ray("looking for nodes that are about to go"):
            new = set(_state().get_draining_nodes()) - self.draining
            self.draining |= new
            if not new:
                return {}
            return {
                it["NodeID"]: it["NodeManagerHostname"]
                for it in self._ray.nodes()
                if it["NodeID"] in new
            }

    def leaving(self) -> set[str]:
        """The nodes, by id, that are about to go or gone."""
        with errors_of_ray("looking for the nodes of the cluster"):
            return self.draining | {it["NodeID"] for it in self._ray.nodes() if not it["Alive"]}

    def node_of(self, actor: Any) -> str | None:
        """The node, by id, on which an actor's process is; None where it has none."""
        with errors_of_ray("looking for a process of the run"):
            found = _state().actor_table(actor._actor_id.hex())  # noqa: SLF001 -- no public name.
        address = found.get("Address") or {}
        # Where an actor waits for room, Ray gives a node that is none.
        return address.get("NodeID") or None if address.get("IPAddress") else None

    def preferring(self, node: str, num_cpus: int) -> Any:
        """The strategy that puts an actor on `node` if that can be.

        What takes no CPU has room on every node that stays: Ray would put it on others all the same
        where it need not.
        """
        strategies = self._ray.util.scheduling_strategies
        is_soft = num_cpus > 0 or node in self.leaving()
        return strategies.NodeAffinitySchedulingStrategy(node, soft=is_soft)


def _state() -> Any:
    return importlib.import_module("ray._private.state").state
