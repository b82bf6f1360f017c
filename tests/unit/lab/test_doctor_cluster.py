"""What is said of a cluster's nodes. No Ray is started."""

from __future__ import annotations

from dataclasses import replace

import distsgd
from distsgd.cli.doctor import node_rows
from distsgd.lab.doctor_cluster import advice, groups
from distsgd.parallel.launch.nodes.ask_node import look_around
from distsgd.parallel.launch.nodes.check import Node, differences

A = Node(
    "a",
    "10.0.0.1",
    4,
    8.0,
    distsgd=distsgd.__version__,
    python=look_around("float32")["python"],
    niceness=0,
    clock_s=0.0,
    bits="1",
)


def test_nodes_that_are_alike_need_no_advice() -> None:
    nodes = [A, replace(A, name="b")]
    together = list(groups(nodes))
    assert together == [["a", "b"]]
    assert list(advice(nodes, together)) == []


def test_each_difference_is_named_with_its_node_and_the_way_out() -> None:
    others = [
        replace(A, name="b", distsgd="9.9"),
        replace(A, name="c", python="3.1.4"),
        replace(A, name="d", distsgd="", error="ModuleNotFoundError: No module named 'distsgd'"),
    ]
    found = list(differences([A, *others]))
    assert [line.partition(" has ")[0] for line in found[:2]] == ["node b", "node c"]
    assert found[2] == "node d: ModuleNotFoundError: No module named 'distsgd'"


def test_other_bits_niceness_and_clocks_are_advised_on() -> None:
    nodes = [A, replace(A, name="b", bits="2", niceness=15, clock_s=-7.5)]
    bits, nice, clock = advice(nodes, list(groups(nodes)))
    assert "cannot train one run together (a | b)" in bits
    assert "portable" in bits
    assert "b: nice 15" in nice
    assert "RAY_worker_niceness=0" in nice
    assert "clock of b is -7.5 s" in clock


def test_node_says_what_it_has_and_one_that_does_not_answer_is_shown() -> None:
    found = look_around("float32")
    assert (found["distsgd"], found["error"]) == (distsgd.__version__, None)
    silent = Node("b", "10.0.0.2", 4, 8.0, error="waited 30 s for node b")
    facts = {"can_train_together": [["a"]]}
    as_facts = [{name: getattr(it, name) for name in it.__slots__} for it in (A, silent)]
    rows = dict(node_rows(facts | {"nodes": as_facts}))
    assert "workers at nice 0" in rows["a"]
    assert "waited 30 s" in rows["b"]
