"""A crew whose workers answer in this process, as each test says. No tests here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.chance import Purpose, uniform
from distsgd.parallel.crew.crew import Crew, Work
from distsgd.parallel.crew.plan import SERVER, Planner
from distsgd.parallel.crew.reduction import Root
from distsgd.parallel.exchange.contract import Event, Joined, Layout, Lost, Reported
from distsgd.parallel.messages import Kind, Order
from distsgd.parallel.tree import Sums, most_nodes
from tests.fakes import FakeWorker, block_gradient, small_blocks
from tests.oracles import tree_over

Array = NDArray[Any]
Fate = Callable[["LoopExchange", int, Order], None]
SAMPLER = small_blocks(300, 64, lanes=8, lane_rows=8, block_rows=3)
LAYOUT = Layout(33, most_nodes(SAMPLER.most_leaves), "float32")
STEPS = range(SAMPLER.steps_per_epoch)
WEIGHTS = uniform(1, Purpose.PROBE, count=33).astype(np.float32)


class Clock:
    """Time that passes when an exchange has waited in vain."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class LoopExchange:
    """Fake workers in this process; `fate` decides about an order; the last answer comes first."""

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

    def send(self, worker: int, order: Order) -> None:
        self.fate(self, worker, order)

    def wait(self, timeout_s: float, *, awake_s: float = 0.0) -> list[Event]:  # noqa: ARG002
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

    def end(self, worker: int) -> None:
        self.happened.append([Lost(worker, "ended")])

    def close(self) -> None:
        self.is_closed = True


def answers(exchange: LoopExchange, worker: int, order: Order) -> None:
    exchange.happened.append([Reported(worker, exchange.workers[worker].compute(order))])


def answers_after(seconds: float) -> Fate:
    """Time passes for each order."""

    def fate(exchange: LoopExchange, worker: int, order: Order) -> None:
        report = exchange.workers[worker].compute(order)
        exchange.delayed.append((seconds, Reported(worker, report)))

    return fate


def dies(exchange: LoopExchange, worker: int, _order: Order) -> None:
    exchange.happened.append([Lost(worker, "killed")])


def dies_and_comes_back(exchange: LoopExchange, worker: int, _order: Order) -> None:
    exchange.happened.append([Lost(worker, "killed"), exchange.join(worker)])


def answers_and_dies(exchange: LoopExchange, worker: int, order: Order) -> None:
    report = Reported(worker, exchange.workers[worker].compute(order))
    exchange.happened.append([report, Lost(worker, "killed")])


def answers_late_ones_first(exchange: LoopExchange, worker: int, order: Order) -> None:
    """Before its answer come those to another step and incarnation, and a stranger's."""
    report = exchange.workers[worker].compute(order)
    wrong = report._replace(nodes=tuple(node._replace(loss_sum=-1.0) for node in report.nodes))
    stale = [
        wrong._replace(step=order.step + 1),
        wrong._replace(incarnation=order.incarnation + 1),
        wrong._replace(last=order.last + 1),
        wrong._replace(kind=Kind.EVALUATE),
    ]
    exchange.happened.append([Reported(worker, report)])
    exchange.happened += [[Reported(worker, late)] for late in stale]
    exchange.happened.append([Reported(99, report)])


def is_silent(_exchange: LoopExchange, _worker: int, _order: Order) -> None:
    pass


def crew_of(
    count: int, fate: Fate = answers, *, plan: Planner | None = None, clock: Clock | None = None
) -> tuple[Crew, LoopExchange]:
    clock = clock or Clock()
    exchange = LoopExchange(count, clock, fate=fate)
    crew = Crew(
        LAYOUT,
        FakeWorker(SAMPLER),
        exchange=exchange if count else None,
        planner=plan or Planner("all"),
        incarnation=1,
        step_timeout_s=10.0,
        clock=clock,
    )
    crew.wait_for_members(count, 5.0)
    crew.weights[:] = WEIGHTS
    return crew, exchange


def work(step: int) -> Work:
    return Work(
        Kind.GRADIENT, step, SAMPLER.partition(step), len(SAMPLER.partition(step + 1).blocks)
    )


def same(root: Root, expected: tuple[Array, Sums]) -> bool:
    return root.gradient_sum.tobytes() == expected[0].tobytes() and root.sums == expected[1]


def expected_root(step: int) -> tuple[Array, Sums]:
    return tree_over(
        SAMPLER.partition(step).blocks,
        lambda block: block_gradient(WEIGHTS, step, block),
        lambda left, right: (left[0] + right[0], left[1].joined(right[1])),
    )


class WithServer(Planner):
    """Has the server and all workers compute in every step."""

    def __init__(self) -> None:
        super().__init__("all")

    def set_members(self, members: Any) -> None:
        super().set_members([SERVER, *members])
