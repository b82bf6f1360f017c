"""Where a run's processes are placed on a cluster, and whether there is room for them.

Pure: nodes and a wish in, places and a sentence out; `cluster` asks Ray for the nodes. Ray itself
places the workers; here it is found out beforehand whether it can.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

_SHOWN_NODES = 8
_PARTS = 10_000
_NO_CPUS = (
    'no node has any; add one that has ("ray start --address=HEAD:6379" on another host), or start '
    "the head without --num-cpus=0"
)
MEMORY = "memory"  # Ray's name for it; in bytes.


PlacementKind = Literal["pack", "spread"]


@dataclass(frozen=True, slots=True)
class Placement:
    """What `[parallel]` says of where the processes of a run go.

    Attributes:
        address: The Ray to use: "local", "auto", or host:port.
        resources: What a worker takes, by Ray's names: CPU, GPU, memory (bytes), custom ones.
        label_selector: Labels of the nodes that workers may be on, by Ray's rules.
        placement: "pack": on few nodes; "spread": over many.
    """

    address: str
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    label_selector: Mapping[str, str] = field(default_factory=dict)
    placement: PlacementKind = "pack"

    def worker_options(self) -> dict[str, Any]:
        """As Ray's actor options."""
        named = {"CPU": "num_cpus", "GPU": "num_gpus", MEMORY: "memory"}
        options: dict[str, Any] = {"num_cpus": 0}  # Ray's default is one that is needed to start.
        options |= {named[it]: count for it, count in self.resources.items() if it in named}
        options["resources"] = {it: n for it, n in self.resources.items() if it not in named}
        if self.label_selector:
            options["label_selector"] = dict(self.label_selector)
        if self.placement == "spread":
            options["scheduling_strategy"] = "SPREAD"
        return options


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of a cluster; resources as Ray counts them.

    Attributes:
        id: Ray's, in hexadecimal.
        name: Of its host.
        total: What it has.
        free: What nobody has taken.
        labels: As `ray start --labels` gave them, and Ray's own.
        is_draining: Is it about to go?
    """

    id: str
    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    is_draining: bool = False

    def takes(self, placement: Placement) -> int:
        """Workers for which it has room.

        >>> node = Node("a", "a", {"CPU": 4.0}, {"CPU": 3.0})
        >>> node.takes(Placement("auto")), node.takes(Placement("auto", {"CPU": 2.0}))
        (3, 1)
        """
        if self.is_draining or not _matches(self.labels, placement.label_selector):
            return 0
        parts = {it: _parts(count) for it, count in placement.resources.items()}
        counts = [_parts(self.free.get(it, 0.0)) // n for it, n in parts.items() if n > 0]
        return max(0, min(counts, default=1 << 12))

    @property
    def num_cpus(self) -> int:
        """Whole CPUs that are free."""
        return int(self.free.get("CPU", 0.0))

    def without(self, num_cpus: int) -> Node:
        """The same with so many CPUs taken."""
        return replace(self, free={**self.free, "CPU": self.free.get("CPU", 0.0) - num_cpus})


@dataclass(frozen=True, slots=True)
class Room:
    """The nodes of a cluster when a run looked, `here` the one of its driver.

    Attributes:
        grows: Could an autoscaler bring more?
    """

    nodes: Sequence[Node]
    here: str
    grows: bool = False

    def takes(self, placement: Placement) -> int:
        """Workers for which there is room."""
        return sum(node.takes(placement) for node in self.nodes)

    def server_places(self, placement: Placement, num_workers: int) -> list[tuple[str, int]]:
        """Nodes for the server, the best first, and how many CPUs it takes there.

        The driver's node is preferred, since it has the run directory and the data; a CPU is taken
        where that does not cost the run a worker. Where it has none free, another node may have
        one; should that node not see the run, the driver's is left, without a CPU. A node that is
        about to go is the last.
        """
        staying = [node for node in self.nodes if not node.is_draining]
        ranked = sorted(staying, key=lambda it: (it.id == self.here, it.num_cpus), reverse=True)
        with_cpu = [
            (it.id, 1) for it in ranked if it.num_cpus and self._without(it, placement, num_workers)
        ]
        driver = next((it for it in ranked if it.id == self.here), None)
        if driver is None:  # It is about to go.
            rest = with_cpu[:1] or [(it.id, 0) for it in ranked[:1]]
            return [*rest, (self.here, 0)]
        if driver.num_cpus:
            return [(self.here, int((self.here, 1) in with_cpu))]
        return [*with_cpu[:1], (self.here, 0)]

    def _without(self, taken: Node, placement: Placement, num_workers: int) -> bool:
        """Would as many workers have room if the server had a CPU of `taken`?"""
        nodes = [it.without(1) if it is taken else it for it in self.nodes]
        return replace(self, nodes=nodes).takes(placement) >= num_workers

    def most_workers(self, placement: Placement) -> int:
        """As many as there is room for; one at least. The server needs no CPU of its own."""
        return max(1, self.takes(placement))

    def says(self, placement: Placement, num_workers: int) -> str:
        """Why there is no room for `num_workers` workers; empty where there is.

        >>> room = Room([Node("1", "a", {"CPU": 2.0}, {"CPU": 1.0})], "1")
        >>> room.says(Placement("auto"), 2)
        '2 workers need 2 CPU; there are 1 of 2 free (node a 1)'
        """
        if self.takes(placement) >= num_workers:
            return ""
        wanted = ", ".join(
            f"{_shown(it, n * num_workers)}" for it, n in placement.resources.items() if n > 0
        )
        where = [f'{key} = "{it}"' for key, it in placement.label_selector.items()]
        fit = [it for it in self.nodes if _matches(it.labels, placement.label_selector)]
        on = f" on nodes with {', '.join(where)}" if where else ""
        if not fit:
            names = ", ".join(node.name for node in self.nodes[:_SHOWN_NODES])
            return f"{num_workers} workers need {wanted}{on}; no node is such a one ({names})"
        free = ", ".join(_free(it, fit) for it, n in placement.resources.items() if n > 0)
        return f"{num_workers} workers need {wanted}{on}; there are {free}"

    def way_out(self, placement: Placement, num_workers: int) -> str:
        """What to do where there is no room for `num_workers` workers."""
        if placement.resources.get("CPU") and not any(it.total.get("CPU") for it in self.nodes):
            return _NO_CPUS
        if not self.takes(placement):
            return "end what takes it, or add nodes"
        return (
            "ask for fewer (--workers), end what takes the rest, add nodes, or begin with those "
            f"for which there is room: [parallel] workers = [1, {num_workers}]"
        )


@dataclass(frozen=True, slots=True)
class Where:
    """Where a run was told to go, and the room there was; None on a Ray of its own."""

    placement: Placement
    room: Room | None

    @property
    def is_local(self) -> bool:
        """Is it on a Ray of the run's own?"""
        return self.room is None

    def worker_options(self) -> dict[str, Any]:
        """What a worker takes, as Ray's actor options."""
        # On a cluster, workers for which there is no room yet wait until there is.
        return {"num_cpus": 0} if self.is_local else self.placement.worker_options()

    def lacks(self, num_workers: int) -> str:
        """See `Room.says`."""
        return "" if self.room is None else self.room.says(self.placement, num_workers)

    def server_places(self, num_workers: int, leaving: Collection[str]) -> list[tuple[str, int]]:
        """See `Room.server_places`; `leaving` nodes are about to go by now, or gone."""
        assert self.room is not None
        nodes = [replace(it, is_draining=it.id in leaving) for it in self.room.nodes]
        return replace(self.room, nodes=nodes).server_places(self.placement, num_workers)


def _parts(count: float) -> int:
    """As Ray counts what is taken: in whole parts of 1/10,000, the nearest.

    Five times 0.2 is more than 1 in floating point, and so is what was given out and came back.

    >>> 1.0 // 0.2, _parts(1.0) // _parts(0.2)
    (4.0, 5)
    """
    return math.floor(count * _PARTS + 0.5)


def _free(resource: str, nodes: Sequence[Node]) -> str:
    """How much of a resource is free, of how much, and where."""
    total = sum(node.total.get(resource, 0.0) for node in nodes)
    free = sum(node.free.get(resource, 0.0) for node in nodes)
    by_node = [
        f"node {node.name} {_number(resource, node.free.get(resource, 0.0))}"
        + (", about to go" if node.is_draining else "")
        for node in sorted(nodes, key=lambda it: it.name)[:_SHOWN_NODES]
    ]
    more = [f"and {len(nodes) - _SHOWN_NODES} more"] if len(nodes) > _SHOWN_NODES else []
    what = "" if resource == "CPU" else f" {resource}"
    shown = f"{_number(resource, free)} of {_number(resource, total)}{what} free"
    return f"{shown} ({', '.join([*by_node, *more])})"


def _shown(resource: str, count: float) -> str:
    return f"{_number(resource, count)} {resource}"


def _number(resource: str, count: float) -> str:
    return f"{count / 1e9:.1f} GB" if resource == MEMORY else f"{count:g}"


def _matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Does a node have the labels that `selector` asks for, by Ray's rules?

    >>> labels = {"zone": "a"}
    >>> [_matches(labels, {"zone": it}) for it in ("a", "b", "!a", "!b", "in(a, b)", "!in(a)")]
    [True, False, False, True, True, False]
    """
    for key, rule in selector.items():
        is_wanted, wanted = not rule.startswith("!"), rule.removeprefix("!")
        values = {wanted}
        if wanted.startswith("in(") and wanted.endswith(")"):
            values = {it.strip() for it in wanted[3:-1].split(",")}
        if (labels.get(key) in values) is not is_wanted:
            return False
    return True
