"""What happens to the members of a pool, for tables of events. No tests here."""

from __future__ import annotations

from distsgd.parallel.messages import (
    ComputeReply,
    ComputeRequest,
    RequestKind,
    WorkerInfo,
)
from distsgd.parallel.pool.autotuner import SERVER
from distsgd.parallel.pool.members import (
    Decision,
    Members,
    Recompute,
    Say,
)
from distsgd.parallel.transport.interface import Joined

OWN = WorkerInfo(SERVER, "1", 1, "p", "d", "here", "numpy")
TIMEOUT_S = 10.0


def joined(worker: int) -> Joined:
    return Joined(worker, WorkerInfo(worker, "1", 100 + worker, "p", "d", "here", "numpy"))


def members_of(count: int) -> Members:
    members = Members(OWN, step_timeout_s=TIMEOUT_S)
    for worker in range(count):
        members.handle(joined(worker), 0.0)
    return members


def request(
    first: int = 0, last: int = 2, step: int = 7, kind: RequestKind = RequestKind.GRADIENT
) -> ComputeRequest:
    return ComputeRequest(1, kind, step, first, last, 0, 0)


def reply(to: ComputeRequest) -> ComputeReply:
    return ComputeReply(*to[:5], 0.0, 0.0, ())


def late(worker: int, to: ComputeRequest) -> list[Decision]:
    text = f"worker {worker} is late at step {to.step}; the server computes its blocks"
    return [Say(text), Recompute(worker, to, "late")]
