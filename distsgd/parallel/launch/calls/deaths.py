"""Why a process of a run died, and on which node, in a line: out of what Ray writes pages about.

Ray's words are those of 2.60. Pure, but for `last_death`, which asks Ray's records.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import Any

_MEMORY = re.compile(r"\(IP: ([^,)]+).*?\) was (\S+) used / (\S+) limit", re.DOTALL)
_PROCESS = re.compile(r"\tpid: ([0-9]+)\n.*?\tip: (\S+)\n", re.DOTALL)
_WITHOUT_A_WORD = "Worker unexpectedly exits with a connection error code 2"
_NO_MEMORY = "fewer workers a node, or a smaller batch, need less"


def out_of_memory(text: str) -> str:
    """What Ray's memory monitor says, in a line; "" where `text` is none of its.

    >>> out_of_memory("low on memory. Memory on the node (IP: h, ID: 6) was 7GB used / 8GB limit")
    'on node h killed for want of memory (7GB of 8GB used there); fewer workers a node, or a \
smaller batch, need less'
    """
    found = _MEMORY.search(text)
    if found is None:
        return ""
    node, used, limit = found.groups()
    return f"on node {node} killed for want of memory ({used} of {limit} used there); {_NO_MEMORY}"


def death(text: str) -> str:
    """The text of an ActorDiedError in a line; "" where it names no process."""
    if said := out_of_memory(text):
        return said
    process = _PROCESS.search(text)
    if process is None or _WITHOUT_A_WORD not in text:
        return ""
    return f"on node {process[2]} {_without_a_word(process[1])}"


def _without_a_word(pid: str | int) -> str:
    return (
        f"process {pid} ended without a word: killed for want of memory by the kernel (dmesg there "
        "says so), killed by hand, or crashed in a library"
    )


def remedy(reason: str) -> str:
    """What to look at after a server's deaths, for which Ray gives `reason`."""
    if "never ran" in reason:
        return (
            "no process of the cluster got through to this one: has it the cluster's "
            "RAY_AUTH_MODE and token, and does a firewall stand between?"
        )
    return "look at the memory and the disk of its node"


def last_death(ray: Any, actor: Any) -> str:
    """How the process of an actor that Ray has started again ended, in a line; "" if not known."""
    with contextlib.suppress(Exception):  # It is told for a person; a run does not end by it.
        tables = importlib.import_module("ray.core.generated.gcs_pb2")
        records = ray._private.state.state._connect_and_get_accessor()  # noqa: SLF001 -- no public name.
        found = tables.ActorTableData.FromString(records.get_actor_info(actor._actor_id))  # noqa: SLF001
        last = found.previous_incarnations[-1].worker_id
        for packed in records.get_worker_table():
            worker = tables.WorkerTableData.FromString(packed)
            if worker.worker_address.worker_id == last:
                return _of_worker(worker)
    return ""


def _of_worker(worker: Any) -> str:
    if said := out_of_memory(worker.exit_detail):
        return said
    if _WITHOUT_A_WORD in worker.exit_detail:
        return f"on node {worker.worker_address.ip_address} {_without_a_word(worker.pid)}"
    return ""
