"""The room that a Ray has for a run: CPUs, as Ray counts them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Room:
    """CPUs of a Ray, when a run looked.

    Attributes:
        total: Of all living nodes.
        free: Of them, not taken.
        free_here: The same, of this process's node alone.
    """

    total: int
    free: int
    free_here: int

    def __str__(self) -> str:
        return f"Ray has {self.total} CPUs; {self.free} were free, {self.free_here} on this node"

    def server_cpus(self, num_workers: int) -> int:
        """A CPU of this node for the server, where that does not cost the run a worker."""
        return int(self.free_here > 0 and self.free > num_workers)

    def who_waits(self, num_workers: int) -> str:
        """What to say where there is no room for `num_workers` workers; empty where there is."""
        if self.free >= num_workers:
            return ""
        return (
            f"warning: {num_workers} workers are wanted, a CPU each, but {self}; "
            f"{num_workers - self.free} of them wait for room (end what takes it, ask for fewer "
            "with --workers, or add nodes)"
        )


def room_of(ray: Any) -> Room:
    """The room on the Ray that this process has joined."""
    # Publicly, Ray tells only what all nodes have together.
    state = importlib.import_module("ray._private.state")
    nodes = state.available_resources_per_node()
    free = {node: int(resources.get("CPU", 0)) for node, resources in nodes.items()}
    here = free.get(ray.get_runtime_context().get_node_id(), 0)
    return Room(int(ray.cluster_resources().get("CPU", 0)), sum(free.values()), here)
