"""A pool whose workers answer in this process, as each test says. No tests here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.parallel.messages import ComputeRequest, RequestKind, Sums
from distsgd.parallel.pool.autotuner import SERVER, Assigner, Autotuner
from distsgd.parallel.pool.crash_loop import CrashLoopGuard
from distsgd.parallel.pool.pool import PoolSettings, Work, WorkerPool
from distsgd.parallel.pool.reduction import Root
from distsgd.parallel.transport.interface import BufferLayout, Event, Joined, Lost, Replied
from distsgd.parallel.tree import most_nodes
from tests.fakes import FakeWorker, block_gradient, small_blocks
from tests.oracles import tree_over

Fate = Callable[["LoopTransport", int, ComputeRequest], None]
SAMPLER = small_blocks(300, 64, lanes=8, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(33, most_nodes(SAMPLER.most_leaves), "float32")
STEPS = range(SAMPLER.steps_per_epoch)
WEIGHTS = uniform(1, Purpose.PROBE, count=33).astype(np.float32)


class Clock:
    """Time that passes when a transport has waited in vain."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class LoopTransport:
    """Fake workers in this process, each request with its `fate`; the last answer comes first."""

    can_spin = False

    def __init__(self, count: int, clock: Clock, *, fate: Fate) -> None:
        self.weights: Array = np.zeros(LAYOUT.num_parameters, LAYOUT.dtype)
        self.clock, self.fate = clock, fate
        self.workers: dict[int, FakeWorker] = {}
        self.slots: dict[int, Array] = {}
        self.happened: list[list[Event]] = []
        self.delayed: list[tuple[float, Event]] = []  # What comes after all that has happened.
        self.is_closed = False
        for worker in range(count):
            self.happened.append([self.join(worker)])

    def join(self, worker: int) -> Event:
        fake = self.workers[worker] = FakeWorker(SAMPLER)
        self.slots[worker] = np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), LAYOUT.dtype)
        fake.attach(self.weights, self.slots[worker])
        return Joined(worker, fake.describe(worker))

    def send(self, worker: int, request: ComputeRequest) -> None:
        self.fate(self, worker, request)

    def wait(self, timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:  # noqa: ARG002
        if not self.happened and self.delayed:
            seconds, event = self.delayed.pop()
            self.clock.now_s += seconds
            return [event]
        if not self.happened:
            self.clock.now_s += timeout_s
        events = [event for group in reversed(self.happened) for event in group]
        self.happened.clear()
        return events

    def partials(self, worker: int) -> Array:
        return self.slots[worker]

    def pid(self, worker: int) -> int | None:
        return 1000 + worker

    def kill(self, worker: int) -> None:
        self.happened.append([Lost(worker, "ended")])

    def close(self) -> None:
        self.is_closed = True


def answers(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
    transport.happened.append([Replied(worker, transport.workers[worker].compute(request))])


def answers_after(seconds: float) -> Fate:
    """Time passes for each request."""

    def fate(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        reply = transport.workers[worker].compute(request)
        transport.delayed.append((seconds, Replied(worker, reply)))

    return fate


def dies(transport: LoopTransport, worker: int, _request: ComputeRequest) -> None:
    transport.happened.append([Lost(worker, "killed")])


def dies_and_comes_back(transport: LoopTransport, worker: int, _request: ComputeRequest) -> None:
    transport.happened.append([Lost(worker, "killed"), transport.join(worker)])


def answers_and_dies(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
    reply = Replied(worker, transport.workers[worker].compute(request))
    transport.happened.append([reply, Lost(worker, "killed")])


def answers_late_ones_first(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
    """Before its answer come those to another step and incarnation, and a stranger's."""
    reply = transport.workers[worker].compute(request)
    wrong = reply._replace(nodes=tuple(node._replace(loss_sum=-1.0) for node in reply.nodes))
    stale = [
        wrong._replace(step=request.step + 1),
        wrong._replace(incarnation=request.incarnation + 1),
        wrong._replace(last=request.last + 1),
        wrong._replace(kind=RequestKind.EVALUATE),
    ]
    transport.happened.append([Replied(worker, reply)])
    transport.happened += [[Replied(worker, late)] for late in stale]
    transport.happened.append([Replied(99, reply)])


def is_silent(_transport: LoopTransport, _worker: int, _request: ComputeRequest) -> None:
    pass


def pool_of(
    count: int,
    fate: Fate = answers,
    *,
    assigner: Assigner | None = None,
    say: Callable[[str], None] = lambda _: None,
    crash_loop: CrashLoopGuard | None = None,
    clock: Clock | None = None,
) -> tuple[WorkerPool, LoopTransport]:
    clock = clock or Clock()
    transport = LoopTransport(count, clock, fate=fate)
    pool = WorkerPool(
        LAYOUT,
        FakeWorker(SAMPLER),
        transport=transport if count else None,
        settings=PoolSettings("all", 10.0, incarnation=1),
        crash_loop=crash_loop,
        say=say,
        clock=clock,
    )
    if assigner is not None:
        pool._assigner = assigner
    pool.wait_for_members(count, 5.0)
    pool.weights[:] = WEIGHTS
    return pool, transport


def work(step: int) -> Work:
    return Work(
        RequestKind.GRADIENT, step, SAMPLER.partition(step), len(SAMPLER.partition(step + 1).blocks)
    )


def same(root: Root, expected: tuple[Array, Sums]) -> bool:
    return root.gradient_sum.tobytes() == expected[0].tobytes() and root.sums == expected[1]


def expected_root(step: int) -> tuple[Array, Sums]:
    return tree_over(
        SAMPLER.partition(step).blocks,
        lambda block: block_gradient(WEIGHTS, step, block),
        lambda left, right: (left[0] + right[0], left[1].joined(right[1])),
    )


class WithServer(Assigner):
    """Has the server and all workers compute in every step."""

    def __init__(self) -> None:
        super().__init__("all")

    def tuner(self, num_blocks: int, workers: tuple[int, ...]) -> Autotuner:
        return super().tuner(num_blocks, (SERVER, *workers))
