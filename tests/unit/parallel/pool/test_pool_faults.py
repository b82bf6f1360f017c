"""Workers that are lost, late, missing or wrong: what becomes of the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.errors import ClusterError, NumericsError, WaitTimeoutError
from distsgd.parallel.messages import ComputeRequest
from distsgd.parallel.pool.crash_loop import CrashLoopGuard
from distsgd.parallel.pool.pool import LOOK_S, WorkerPool
from distsgd.parallel.pool.stragglers import END_AFTER_S
from distsgd.parallel.transport.interface import Joined, Replied
from tests.fakes import FakeWorker
from tests.unit.parallel.pool.loop_transport import (
    SAMPLER,
    STEPS,
    Clock,
    Fate,
    LoopTransport,
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
    def fates(transport: LoopTransport, worker: int, order: ComputeRequest) -> None:
        (fate if worker in victims and order.step == 1 else answers)(transport, worker, order)

    pool, _ = crew_of(3, fates, plan=WithServer() if has_server else None)
    for step in STEPS:
        assert same(pool.gather(work(step)), expected_root(step))
    left = {0, 1, 2} if fate is dies_and_comes_back else {0, 1, 2} - victims
    assert set(pool.members) == left


def falls_silent(transport: LoopTransport, worker: int, order: ComputeRequest) -> None:
    """Worker 0 answers the first three steps only."""
    transport.clock.now_s += 0.001
    if worker or order.step < 3:
        answers(transport, worker, order)


def test_a_late_worker_is_outrun_gets_no_work_and_is_ended() -> None:
    clock = Clock()
    pool, _ = crew_of(2, falls_silent, clock=clock)
    alone, _ = crew_of(0)
    for step in range(3):
        pool.gather(work(step))
    before = clock.now_s
    found = pool.gather(work(3))
    assert clock.now_s - before < 1.0
    expected = alone.gather(work(3))
    assert found.sums == expected.sums
    assert np.array_equal(found.gradient_sum, expected.gradient_sum)
    assert list(pool.computed_by) == [0, 1]
    pool.gather(work(4))
    assert list(pool.computed_by) == [1]
    clock.now_s += END_AFTER_S + LOOK_S
    pool.gather(work(5))
    pool.gather(work(6))
    assert pool.members == (1,)


def test_workers_that_never_answer_are_outrun_at_the_latest_when_the_time_is_over() -> None:
    clock = Clock()
    pool, _ = crew_of(2, is_silent, clock=clock)
    alone, _ = crew_of(0)
    before = clock.now_s
    found, expected = pool.gather(work(1)), alone.gather(work(1))
    assert clock.now_s - before == 10.0
    assert found.sums == expected.sums
    assert np.array_equal(found.gradient_sum, expected.gradient_sum)


def test_missing_workers_are_named() -> None:
    pool, transport = crew_of(1)
    transport.happened.append([transport.join(2)])
    with pytest.raises(WaitTimeoutError, match=r"waited 5 s for workers \[1, 3\] to connect"):
        pool.wait_for_members(4, 5.0)


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
    pool, transport = crew_of(1)
    own = transport.workers[0].describe(1)
    transport.happened.append([Joined(1, replace(own, **change))])
    with pytest.raises(error, match=message):
        pool.wait_for_members(2, 5.0)
    assert pool.members == (0,)


def spoiled(**change: Any) -> Fate:
    """Worker 1 answers step 1 with something else than it computed."""

    def fate(transport: LoopTransport, worker: int, order: ComputeRequest) -> None:
        report = transport.workers[worker].compute(order)
        if worker == 1 and order.step == 1:
            if "gradient" in change:
                transport.slots[worker][0] = change["gradient"]
            fields = {name: value for name, value in change.items() if name != "gradient"}
            nodes = tuple(node._replace(**fields) for node in report.nodes)
            report = report._replace(nodes=nodes)
        transport.happened.append([Replied(worker, report)])

    return fate


def one_node_too_many(transport: LoopTransport, worker: int, order: ComputeRequest) -> None:
    report = transport.workers[worker].compute(order)
    if worker == 1 and order.step == 1:
        report = report._replace(nodes=(*report.nodes, report.nodes[0]))
    transport.happened.append([Replied(worker, report)])


def crew_that_says(count: int, fate: Fate) -> tuple[WorkerPool, list[str]]:
    pool, _ = crew_of(count, fate)
    said: list[str] = []
    pool._say = said.append
    return pool, said


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
    pool, said = crew_that_says(3, fate)
    for step in STEPS:
        assert same(pool.gather(work(step)), expected_root(step))
    (text,) = said
    assert text.startswith("worker 1, step 1: gave something that cannot be a partial for blocks ")
    assert set(pool.members) == {0, 2}


class Diverged(FakeWorker):
    """Its losses are no numbers, whoever computes them."""

    def compute(self, order: ComputeRequest) -> Any:
        report = super().compute(order)
        nodes = tuple(node._replace(loss_sum=float("nan")) for node in report.nodes)
        return report._replace(nodes=nodes)


def test_loss_that_is_no_number_here_too_is_nobodys_fault() -> None:
    pool, said = crew_that_says(3, spoiled(loss_sum=float("nan")))
    pool._own._handler = Diverged(SAMPLER)
    pool._own._handler.attach(pool.weights, pool._own._slots)
    pool.gather(work(0))
    assert np.isnan(pool.gather(work(1)).sums.loss_sum)
    assert said == []
    assert set(pool.members) == {0, 1, 2}


def test_blocks_that_kill_whoever_computes_them_are_named_by_the_next_incarnation(
    tmp_path: Path,
) -> None:
    class Mortal(FakeWorker):
        def compute(self, order: ComputeRequest) -> Any:
            raise SystemExit(str(order))  # Stands for the end of the server's process.

    def fate(transport: LoopTransport, worker: int, order: ComputeRequest) -> None:
        (dies if order.first <= 5 < order.last else answers)(transport, worker, order)

    pool, _ = crew_of(2, fate)
    pool.crash_loop = CrashLoopGuard(tmp_path / "suspects.json")
    pool._own._handler = Mortal(SAMPLER)
    with pytest.raises(SystemExit):
        pool.gather(work(0))
    again, _ = crew_of(3, fate)
    again.crash_loop = CrashLoopGuard(tmp_path / "suspects.json")
    with pytest.raises(ClusterError, match="3 processes died one after the other on blocks"):
        again.gather(work(0))
