"""Workers that are lost, late, missing or wrong: what becomes of the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.errors import ClusterError, ExchangeTimeoutError, NumericsError
from distsgd.parallel.crew.crew import LOOK_S, Crew
from distsgd.parallel.crew.lateness import END_AFTER_S
from distsgd.parallel.crew.suspects import Suspects
from distsgd.parallel.exchange.contract import Joined, Reported
from distsgd.parallel.messages import Order
from tests.fakes import FakeWorker
from tests.unit.parallel.crew.loop_exchange import (
    SAMPLER,
    STEPS,
    Clock,
    Fate,
    LoopExchange,
    WithServer,
    answers,
    answers_and_dies,
    crew_of,
    dies,
    dies_and_comes_back,
    expected_root,
    is_silent,
    same,
    work,
)


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
