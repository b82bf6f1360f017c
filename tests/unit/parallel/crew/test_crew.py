from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.chance import Purpose, uniform
from distsgd.errors import ClusterError, ExchangeTimeoutError, NumericsError
from distsgd.parallel.crew.crew import LOOK_S, Crew, Work
from distsgd.parallel.crew.lateness import END_AFTER_S, SLOW_FLOOR_S, SLOW_STEPS
from distsgd.parallel.crew.plan import MOST_TRIAL_STEPS, SERVER, PlanKind, Planner, crews
from distsgd.parallel.crew.reduction import Root
from distsgd.parallel.crew.suspects import Suspects
from distsgd.parallel.exchange.contract import Event, Joined, Layout, Lost, Reported
from distsgd.parallel.messages import Kind, Order
from distsgd.parallel.tree import Sums, most_nodes
from tests.fakes import NUM_TEST_ROWS, FakeWorker, block_gradient, small_blocks
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


def test_the_fakes_show_every_change_of_order() -> None:
    parts = [block_gradient(WEIGHTS, 0, block)[0] for block in SAMPLER.partition(0).blocks]
    assert np.add.reduce(parts).tobytes() != expected_root(0)[0].tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 40])
def test_root_is_the_same_bits_for_any_number_of_workers(count: int) -> None:
    crew, _ = crew_of(count)
    for step in STEPS:
        assert same(crew.gather(work(step)), expected_root(step))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_root_is_the_same_bits_by_every_way_of_a_measured_plan(count: int) -> None:
    crew, _ = crew_of(
        count, answers_after(0.9 * SLOW_FLOOR_S / count), plan=Planner("measured", cores=9)
    )
    tried = set()
    for _ in range(20 * MOST_TRIAL_STEPS):
        assert same(crew.gather(work(0)), expected_root(0))
        tried.add(crew.computed_by)
        if crew.is_settled and len(tried) > 1:
            break
    assert crew.is_settled
    assert tried == set(crews(range(count), len(SAMPLER.partition(0).blocks)))


def test_worker_that_step_after_step_waits_for_rests() -> None:
    def is_slow(exchange: LoopExchange, worker: int, order: Order) -> None:
        (answers if worker else answers_after(0.025))(exchange, worker, order)

    crew, _ = crew_of(3, is_slow)
    said: list[str] = []
    crew._roster._say = said.append
    for _ in range(SLOW_STEPS + 1):
        assert same(crew.gather(work(0)), expected_root(0))
    assert crew.computed_by == (1, 2)
    assert said == ["worker 0 is slow, seen at step 0; others compute its blocks"]


@pytest.mark.parametrize("fate", [dies, dies_and_comes_back, answers_and_dies])
@pytest.mark.parametrize("victims", [{0}, {1}, {2}, {0, 2}, {0, 1}, {0, 1, 2}])
@pytest.mark.parametrize("has_server", [True, False])
def test_lost_workers_change_no_bit(fate: Fate, victims: set[int], *, has_server: bool) -> None:
    def fates(exchange: LoopExchange, worker: int, order: Order) -> None:
        (fate if worker in victims and order.step == 1 else answers)(exchange, worker, order)

    crew, _ = crew_of(3, fates, plan=WithServer() if has_server else None)
    for step in STEPS:
        assert same(crew.gather(work(step)), expected_root(step))
    left = {0, 1, 2} if fate is dies_and_comes_back else {0, 1, 2} - victims
    assert set(crew.members) == left


class WithServer(Planner):
    """Has the server and all workers compute in every step."""

    def __init__(self) -> None:
        super().__init__("all")

    def set_members(self, members: Any) -> None:
        super().set_members([SERVER, *members])


@pytest.mark.parametrize("has_server", [True, False])
def test_stale_and_foreign_reports_are_not_looked_at(*, has_server: bool) -> None:
    crew, _ = crew_of(3, answers_late_ones_first, plan=WithServer() if has_server else None)
    for step in STEPS:
        assert same(crew.gather(work(step)), expected_root(step))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("leaves", [1, 8])
def test_evaluation_sums_all_blocks_whatever_their_number(count: int, leaves: int) -> None:
    # Steps of one block mean two slots; 17 test blocks leave workers more nodes than that.
    crew, exchange = crew_of(count)
    partition = SAMPLER.blocking.evaluation(NUM_TEST_ROWS)
    slots = most_nodes(leaves)
    exchange.slots = {worker: slots_SP[:slots] for worker, slots_SP in exchange.slots.items()}
    crew._own._slots = crew._own._slots[:slots]
    sums = tree_over(partition.blocks, lambda b: block_gradient(WEIGHTS, 3, b)[1], Sums.joined)
    assert crew.gather(Work(Kind.EVALUATE, 3, partition)).sums == sums


def falls_silent(exchange: LoopExchange, worker: int, order: Order) -> None:
    """Worker 0 answers the first three steps only."""
    exchange.clock.now_s += 0.001
    if worker or order.step < 3:
        answers(exchange, worker, order)


def test_a_late_worker_is_outrun_gets_no_work_and_is_ended() -> None:
    clock = Clock()
    crew, _ = crew_of(2, falls_silent, clock=clock)
    alone, _ = crew_of(0)
    for step in range(3):
        crew.gather(work(step))
    before = clock.now_s
    found = crew.gather(work(3))
    assert clock.now_s - before < 1.0
    expected = alone.gather(work(3))
    assert found.sums == expected.sums
    assert np.array_equal(found.gradient_sum, expected.gradient_sum)
    assert list(crew.computed_by) == [0, 1]
    crew.gather(work(4))
    assert list(crew.computed_by) == [1]
    clock.now_s += END_AFTER_S + LOOK_S
    crew.gather(work(5))
    crew.gather(work(6))
    assert crew.members == (1,)


def test_workers_that_never_answer_are_outrun_at_the_latest_when_the_time_is_over() -> None:
    clock = Clock()
    crew, _ = crew_of(2, is_silent, clock=clock)
    alone, _ = crew_of(0)
    before = clock.now_s
    found, expected = crew.gather(work(1)), alone.gather(work(1))
    assert clock.now_s - before == 10.0
    assert found.sums == expected.sums
    assert np.array_equal(found.gradient_sum, expected.gradient_sum)


def test_missing_workers_are_named() -> None:
    crew, exchange = crew_of(1)
    exchange.happened.append([exchange.join(2)])
    with pytest.raises(ExchangeTimeoutError, match=r"waited 5 s for workers \[1, 3\] to connect"):
        crew.wait_for_members(4, 5.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": "other"}, ClusterError, "worker 1 runs distsgd other, the server"),
        ({"data_digest": "other"}, ClusterError, "worker 1 sees other data than the server"),
        (
            {"probe": "other"},
            NumericsError,
            r"worker 1 computes other bits than the server \(probe other",
        ),
    ],
)
def test_worker_that_would_compute_something_else_is_refused(
    change: Any, error: type[ClusterError], message: str
) -> None:
    crew, exchange = crew_of(1)
    own = exchange.workers[0].describe(1)
    exchange.happened.append([Joined(1, replace(own, **change))])
    with pytest.raises(error, match=message):
        crew.wait_for_members(2, 5.0)
    assert crew.members == (0,)


def test_worker_that_joins_in_the_middle_works_in_the_next_step() -> None:
    seen: list[tuple[int, int]] = []

    def fates(exchange: LoopExchange, worker: int, order: Order) -> None:
        seen.append((order.step, worker))
        if order.step == 0:
            exchange.happened.append([exchange.join(1)])
        answers(exchange, worker, order)

    crew, _ = crew_of(1, fates)
    for step in (0, 1):
        assert same(crew.gather(work(step)), expected_root(step))
    assert seen == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize("kind", ["all", "measured"])
def test_worker_that_joins_a_server_that_computes_alone_is_seen(kind: PlanKind) -> None:
    clock = Clock()
    crew, exchange = crew_of(1, plan=Planner(kind), clock=clock)
    exchange.happened.append([Lost(0, "killed")])
    clock.now_s += LOOK_S
    crew.gather(work(0))
    assert list(crew.members) == []
    exchange.happened.append([exchange.join(0)])
    clock.now_s += LOOK_S
    assert same(crew.gather(work(1)), expected_root(1))
    assert list(crew.members) == [0]


def test_orders_name_the_blocks_that_a_worker_may_expect_next() -> None:
    orders: list[Order] = []

    def fates(exchange: LoopExchange, worker: int, order: Order) -> None:
        orders.append(order)
        answers(exchange, worker, order)

    crew, _ = crew_of(2, fates)
    for step in (0, 1):
        crew.gather(work(step))
    assert [order[5:7] for order in orders[:2]] == [order[3:5] for order in orders[2:]]


def test_root_can_be_read_until_the_next_step_and_workers_see_the_weights() -> None:
    crew, exchange = crew_of(3)
    root = crew.gather(work(0))
    crew.weights[:] = 0
    assert same(root, expected_root(0))
    assert not exchange.weights.any()
    crew.close()
    assert exchange.is_closed


def spoiled(**change: Any) -> Fate:
    """Worker 1 answers step 1 with something else than it computed."""

    def fate(exchange: LoopExchange, worker: int, order: Order) -> None:
        report = exchange.workers[worker].compute(order)
        if worker == 1 and order.step == 1:
            if "gradient" in change:
                exchange.slots[worker][0] = change["gradient"]
            fields = {name: value for name, value in change.items() if name != "gradient"}
            nodes = tuple(node._replace(**fields) for node in report.nodes)
            report = report._replace(nodes=nodes)
        exchange.happened.append([Reported(worker, report)])

    return fate


def one_node_too_many(exchange: LoopExchange, worker: int, order: Order) -> None:
    report = exchange.workers[worker].compute(order)
    if worker == 1 and order.step == 1:
        report = report._replace(nodes=(*report.nodes, report.nodes[0]))
    exchange.happened.append([Reported(worker, report)])


def crew_that_says(count: int, fate: Fate) -> tuple[Crew, list[str]]:
    crew, _ = crew_of(count, fate)
    said: list[str] = []
    crew._say = said.append
    return crew, said


@pytest.mark.parametrize(
    "fate",
    [
        one_node_too_many,
        spoiled(loss_sum=float("nan")),
        spoiled(loss_sum=float("inf"), gradient=float("nan")),
        spoiled(squared_norm_sum=float("nan")),
    ],
)
def test_worker_that_gives_what_cannot_be_is_named_and_ended_and_the_step_goes_on(
    fate: Fate,
) -> None:
    crew, said = crew_that_says(3, fate)
    for step in STEPS:
        assert same(crew.gather(work(step)), expected_root(step))
    (text,) = said
    assert text.startswith("worker 1, step 1: gave something that cannot be a partial for blocks ")
    assert set(crew.members) == {0, 2}


class Diverged(FakeWorker):
    """Its losses are no numbers, whoever computes them."""

    def compute(self, order: Order) -> Any:
        report = super().compute(order)
        nodes = tuple(node._replace(loss_sum=float("nan")) for node in report.nodes)
        return report._replace(nodes=nodes)


def test_loss_that_is_no_number_here_too_is_nobodys_fault() -> None:
    crew, said = crew_that_says(3, spoiled(loss_sum=float("nan")))
    crew._own._worker = Diverged(SAMPLER)
    crew._own._worker.attach(crew.weights, crew._own._slots)
    crew.gather(work(0))
    assert np.isnan(crew.gather(work(1)).sums.loss_sum)
    assert said == []
    assert set(crew.members) == {0, 1, 2}


def test_blocks_that_kill_whoever_computes_them_are_named_by_the_next_incarnation(
    tmp_path: Path,
) -> None:
    class Mortal(FakeWorker):
        def compute(self, order: Order) -> Any:
            raise SystemExit(str(order))  # Stands for the end of the server's process.

    def fate(exchange: LoopExchange, worker: int, order: Order) -> None:
        (dies if order.first <= 5 < order.last else answers)(exchange, worker, order)

    crew, _ = crew_of(2, fate)
    crew.suspects = Suspects(tmp_path / "suspects.json")
    crew._own._worker = Mortal(SAMPLER)
    with pytest.raises(SystemExit):
        crew.gather(work(0))
    again, _ = crew_of(3, fate)
    again.suspects = Suspects(tmp_path / "suspects.json")
    with pytest.raises(ClusterError, match="3 processes died one after the other on blocks"):
        again.gather(work(0))
