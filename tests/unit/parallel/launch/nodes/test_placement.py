"""Where processes go, and what is said where there is no room. No Ray."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distsgd.parallel.launch.nodes.placement import Node, Placement, Room

ONE_CPU = Placement("auto")


def node(name: str, free: float, total: float = 4.0, **more: object) -> Node:
    labels = {"zone": str(more.get("zone", "a"))}
    memory = {"memory": 8e9}
    is_draining = bool(more.get("is_draining"))
    cpus = {"CPU": free}, {"CPU": total}
    return Node(name, name, {**cpus[1], **memory}, {**cpus[0], **memory}, labels, is_draining)


def room(*nodes: Node, here: str = "a") -> Room:
    return Room(nodes, here)


@pytest.mark.parametrize(
    ("nodes", "num_workers", "places"),
    [
        ([node("a", 3)], 2, ["a 1"]),
        ([node("a", 2)], 2, ["a 0"]),  # A CPU would cost the run a worker.
        ([node("a", 1), node("b", 2)], 2, ["a 1"]),
        ([node("b", 4), node("a", 4)], 7, ["a 1"]),
        ([node("b", 4), node("a", 4)], 8, ["a 0"]),
        ([node("a", 0, 0), node("b", 9)], 2, ["b 1", "a 0"]),  # A head without CPUs, or a busy one.
        ([node("a", 0, 0), node("b", 2), node("c", 4)], 2, ["c 1", "a 0"]),
        ([node("a", 0, 0), node("b", 2)], 2, ["a 0"]),
        ([node("a", 0, 0), node("b", 4, is_draining=True)], 0, ["a 0"]),
        ([node("a", 0, 0)], 1, ["a 0"]),
        ([node("a", 4, is_draining=True), node("b", 1), node("c", 2)], 1, ["c 1", "a 0"]),
        ([node("a", 4, is_draining=True), node("b", 1)], 1, ["b 0", "a 0"]),
        ([node("a", 4, is_draining=True)], 1, ["a 0"]),
    ],
)
def test_server_is_on_its_drivers_node_and_takes_a_cpu_where_that_costs_no_worker(
    nodes: list[Node], num_workers: int, places: list[str]
) -> None:
    found = room(*nodes).server_places(ONE_CPU, num_workers)
    assert [f"{name} {num_cpus}" for name, num_cpus in found] == places


@pytest.mark.parametrize("resource", ["CPU", "GPU", "mine"])
def test_node_takes_as_many_workers_as_their_whole_parts_fit(resource: str) -> None:
    for free in range(1, 5):
        node = Node("a", "a", {}, {resource: float(free)})
        for part in range(1, 101):
            takes = Placement("auto", {resource: part / 100})
            assert node.takes(takes) == 100 * free // part
    used = Node("a", "a", {}, {resource: 1.0 - 0.1 - 0.1 - 0.1})
    assert used.takes(Placement("auto", {resource: 0.1})) == 7


@pytest.mark.parametrize(
    ("nodes", "most"),
    [
        ([node("a", 2)], 2),  # The server needs none.
        ([node("a", 1), node("b", 1), node("c", 0, 0)], 2),
        ([node("a", 0, 0), node("b", 4), node("c", 4)], 8),
        ([node("a", 1)], 1),
        ([node("a", 0, 0)], 1),
    ],
)
def test_auto_is_what_the_cluster_has_wherever_the_driver_is(nodes: list[Node], most: int) -> None:
    for here in nodes:
        assert replace(room(*nodes), here=here.id).most_workers(ONE_CPU) == most


def test_workers_fit_by_all_their_resources_on_one_node_each() -> None:
    nodes = [node("a", 3), node("b", 3)]
    assert room(*nodes).takes(Placement("auto", {"CPU": 2.0})) == 2
    assert room(*nodes).takes(Placement("auto", {"CPU": 1.0, "memory": 4e9})) == 4
    assert room(*nodes).takes(Placement("auto", {"CPU": 1.0, "GPU": 1.0})) == 0


def test_lack_of_room_names_what_is_needed_what_there_is_and_where() -> None:
    seven = room(node("a", 1), node("b", 4), node("c", 0, is_draining=True))
    assert seven.says(ONE_CPU, 5) == ""
    said = seven.says(ONE_CPU, 7)
    free = "5 of 12 free (node a 1, node b 4, node c 0, about to go)"
    assert said == f"7 workers need 7 CPU; there are {free}"
    memory = seven.says(Placement("auto", {"CPU": 1.0, "memory": 9e9}), 1)
    assert "1 workers need 1 CPU, 9.0 GB memory" in memory
    assert "24.0 GB of 24.0 GB memory free (node a 8.0 GB" in memory


@pytest.mark.parametrize(
    ("nodes", "way_out"),
    [
        ([node("a", 0, 0)], 'no node has any; add one that has ("ray start --address='),
        ([node("a", 0, 0), node("b", 0)], "end what takes it, or add nodes"),
        ([node("a", 0, 0), node("b", 1)], "[parallel] workers = [1, 2]"),
    ],
)
def test_way_out_of_a_lack_of_room_is_one_that_helps(nodes: list[Node], way_out: str) -> None:
    assert way_out in room(*nodes).way_out(ONE_CPU, 2)
    assert "no node has any" not in room(*nodes).way_out(Placement("auto", {"GPU": 1.0}), 2)


def test_lack_of_nodes_with_a_label_is_told_as_such() -> None:
    two = room(node("a", 4), node("b", 4, zone="b"))
    assert two.says(Placement("auto", label_selector={"zone": "b"}), 4) == ""
    assert 'on nodes with zone = "b"; there are 4 of 4' in two.says(
        Placement("auto", label_selector={"zone": "b"}), 5
    )
    assert 'zone = "c"; no node is such a one (a, b)' in two.says(
        Placement("auto", label_selector={"zone": "c"}), 1
    )


def test_options_of_a_worker_are_rays_names_for_its_resources() -> None:
    placement = Placement("auto", {"CPU": 2.0, "memory": 2e9, "disk": 1.0}, {"zone": "a"}, "spread")
    assert placement.worker_options() == {
        "num_cpus": 2.0,
        "memory": 2e9,
        "resources": {"disk": 1.0},
        "label_selector": {"zone": "a"},
        "scheduling_strategy": "SPREAD",
    }
