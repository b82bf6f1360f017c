"""What nodes say of themselves, and by how much their clocks differ. Ray is a fake."""

from __future__ import annotations

import types
from typing import Any

from distsgd.parallel.launch.calls.calls import Calls
from distsgd.parallel.launch.nodes.ask_node import look_around
from distsgd.parallel.launch.nodes.check import arrivals, node_of

SAYS = {"Resources": {"CPU": 2.0}, "NodeManagerHostname": "", "NodeManagerAddress": "10.0.0.1"}


class FakeRay:
    """Each answer comes at its time, and says the time at which it was sent by its node's clock."""

    exceptions = types.SimpleNamespace(GetTimeoutError=OSError, ActorUnavailableError=OSError)

    def __init__(self, **come_s: float) -> None:
        self.now_s = 0.0
        self._come_s = come_s

    def wait(
        self, refs: list[str], *, num_returns: int, timeout: float
    ) -> tuple[list[str], list[str]]:
        assert timeout > 0
        first = sorted((ref for ref in refs if ref in self._come_s), key=self._come_s.__getitem__)
        ended = first[:num_returns]
        self.now_s = max(self.now_s, *(self._come_s[ref] for ref in ended), 0.0)
        return ended, [ref for ref in refs if ref not in ended]

    def get(self, ref: str, *, timeout: float) -> dict[str, Any]:
        assert timeout > 0
        self.now_s += 10.0  # What is done with each takes its time.
        ahead_s = 7.0 if ref == "wrong" else 0.0
        return {"node": ref, "time_s": self._come_s[ref] + ahead_s}


def clocks(ray: FakeRay, *refs: str) -> dict[str, float | None]:
    calls = Calls(ray)
    came_s = arrivals(calls, refs, 30.0, clock=lambda: ray.now_s)
    nodes = [node_of(calls, SAYS, ref, came_s.get(ref), 30.0) for ref in refs]
    return {node.name: node.clock_s for node in nodes}


def test_clock_of_a_node_is_compared_when_its_answer_comes_however_late_the_others_are() -> None:
    ray = FakeRay(slow=9.0, fast=0.5, wrong=3.0, slower=20.0)
    found = clocks(ray, "slow", "fast", "wrong", "slower")
    assert found == {"slow": 0.0, "fast": 0.0, "wrong": 7.0, "slower": 0.0}


def test_node_that_does_not_answer_is_told_of_with_what_was_waited() -> None:
    calls = Calls(FakeRay())
    assert arrivals(calls, ["silent"], 0.01) == {}
    node = node_of(calls, SAYS | {"NodeManagerHostname": "b"}, "silent", None, 30.0)
    assert node.error == "waited 30 s for node b to say what is on it, without an answer"
    assert node.clock_s is None


def test_node_reads_its_clock_when_all_else_is_known() -> None:
    assert list(look_around("float32"))[-1] == "time_s"
