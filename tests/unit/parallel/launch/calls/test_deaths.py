"""What Ray writes about a death, in a line. The texts are Ray's own, of 2.60."""

from __future__ import annotations

import types

import pytest

from distsgd.parallel.launch.calls.calls import ActorDied, Calls
from distsgd.parallel.launch.calls.deaths import death, last_death, out_of_memory

KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tactor_id: d470\n"
    "\tpid: 31883\n\tnamespace: eb54\n\tip: 10.0.0.2\nThe actor is dead because its worker process "
    "has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a "
    "connection error code 2. End of file. Some common causes include: (1) the process was killed "
    "by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) ..."
)
NO_MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
    "10.0.0.2, ID: 67f6) was 1.40GB used / 23.54GB limit (0.059507)\nOOM kill reason: Memory usage "
    "1504149504B exceeded threshold of 505530208B (2.0% of 25276510208B limit)\nmore, for a page"
)


def test_death_by_the_memory_monitor_names_node_and_memory() -> None:
    said = out_of_memory(NO_MEMORY)
    assert said.startswith("on node 10.0.0.2 killed for want of memory (1.40GB of 23.54GB used")
    assert death(NO_MEMORY) == said


def test_death_without_a_word_names_node_process_and_what_may_have_been() -> None:
    said = death(KILLED)
    assert said.startswith("on node 10.0.0.2 process 31883 ended without a word")
    assert "dmesg" in said


def test_other_deaths_keep_rays_words() -> None:
    assert death("The actor never ran - it was cancelled before it started running.") == ""
    assert last_death(None, None) == ""


class RayActorError(Exception):
    actor_init_failed = False


class OutOfMemoryError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        (OutOfMemoryError(NO_MEMORY), "on node 10.0.0.2 killed for want of memory"),
        (RayActorError(KILLED), "on node 10.0.0.2 process 31883 ended"),
        (RayActorError("it was killed"), "it was killed"),
    ],
)
def test_call_to_a_dead_actor_says_how_it_died(error: Exception, begins: str) -> None:
    class Ray:
        exceptions = types.SimpleNamespace(
            GetTimeoutError=KeyError, ActorUnavailableError=KeyError, RayActorError=RayActorError
        )

        def get(self, *_: object, **__: object) -> None:
            raise error

    with pytest.raises(ActorDied) as caught:
        Calls(Ray()).get("a call", "an answer", 1.0)
    assert str(caught.value).startswith(begins)
