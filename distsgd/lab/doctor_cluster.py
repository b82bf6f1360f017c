"""What the nodes of a cluster can do together, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from distsgd.lab.doctor import Findings
from distsgd.parallel.launch.nodes.check import Node, differences, examine_cluster
from distsgd.parallel.numerics import PIN

CLOCK_S = 2.0  # Answers take their time; what is less is none of the clock's.
NICENESS_COST = (
    "next to two busy processes a step of 87 us took 2980 us at nice 15; set "
    "RAY_worker_niceness=0 in the environment of `ray start` on each of these nodes, and start "
    "Ray there again"
)


def examine_nodes(address: str) -> Findings:
    """Ask each node of the cluster at `address`; blocks for some seconds. Raises ClusterError."""
    nodes = examine_cluster(address)
    together = list(groups(nodes))
    facts = {
        "address": address,
        "nodes": [asdict(node) for node in nodes],
        "can_train_together": together,
    }
    return Findings(facts, tuple(advice(nodes, together)))


def groups(nodes: Sequence[Node]) -> Iterator[list[str]]:
    """The names of nodes that compute the same bits, the largest group first."""
    by_bits: dict[str, list[str]] = {}
    for node in nodes:
        if node.bits:
            by_bits.setdefault(node.bits, []).append(node.name)
    yield from sorted(by_bits.values(), key=len, reverse=True)


def advice(nodes: Sequence[Node], together: Sequence[Sequence[str]]) -> Iterator[str]:
    """What should be done about it."""
    for difference in differences(nodes):
        yield f"{difference}; install the same Python, Ray and distsgd on every node"
    if len(together) > 1:
        parts = " | ".join(", ".join(names) for names in together)
        yield f"nodes compute other bits and cannot train one run together ({parts}); {PIN}"
    nice = [node for node in nodes if node.niceness]
    if nice:
        named = ", ".join(f"{node.name}: nice {node.niceness}" for node in nice)
        yield f"Ray's workers give way to others ({named}): {NICENESS_COST}"
    for node in nodes:
        if node.clock_s is not None and abs(node.clock_s) > CLOCK_S:
            yield (
                f"the clock of {node.name} is {node.clock_s:+g} s from this one; times in logs "
                "cannot be compared (have it set by NTP)"
            )
