"""Workers that are lost, late, missing or wrong: what becomes of the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.random_keys import Purpose, raw_integers
from distsgd.errors import ClusterError, NumericsError, WaitTimeoutError
from distsgd.models.own_errors import OwnCodeError
from distsgd.parallel.messages import ComputeRequest
from distsgd.parallel.pool.crash_loop import CrashLoopGuard
from distsgd.parallel.pool.members import KILL_AFTER_S
from distsgd.parallel.pool.pool import LOOK_S, WorkerPool
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
    answers_late_ones_first,
    dies,
    dies_and_comes_back,
    expected_root,
    is_silent,
    pool_of,
    same,
    work,
)


@pytest.mark.parametrize("fate", [dies, dies_and_comes_back, answers_and_dies])
@pytest.mark.parametrize("victims", [{0}, {1}, {2}, {0, 2}, {0, 1}, {0, 1, 2}])
@pytest.mark.parametrize("has_server", [True, False])
def test_lost_workers_change_no_bit(fate: Fate, victims: set[int], *, has_server: bool) -> None:
    def fates(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        (fate if worker in victims and request.step == 1 else answers)(transport, worker, request)

    pool, _ = pool_of(3, fates, assigner=WithServer() if has_server else None)
    for step in STEPS:
        assert same(pool.gather(work(step)), expected_root(step))
    left = {0, 1, 2} if fate is dies_and_comes_back else {0, 1, 2} - victims
    assert set(pool.members) == left


def falls_silent(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
    """Worker 0 answers the first three steps only."""
    transport.clock.now_s += 0.001
    if worker or request.step < 3:
        answers(transport, worker, request)


def test_late_worker_is_backed_up_gets_no_work_and_is_killed() -> None:
    clock = Clock()
    pool, _ = pool_of(2, falls_silent, clock=clock)
    alone, _ = pool_of(0)
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
    clock.now_s += KILL_AFTER_S + LOOK_S
    pool.gather(work(5))
    pool.gather(work(6))
    assert pool.members == (1,)


def test_workers_that_never_answer_are_backed_up_when_the_step_timeout_is_over() -> None:
    clock = Clock()
    pool, _ = pool_of(2, is_silent, clock=clock)
    alone, _ = pool_of(0)
    before = clock.now_s
    found, expected = pool.gather(work(1)), alone.gather(work(1))
    assert clock.now_s - before == 10.0
    assert found.sums == expected.sums
    assert np.array_equal(found.gradient_sum, expected.gradient_sum)


def test_missing_workers_are_named() -> None:
    pool, transport = pool_of(1)
    transport.happened.append([transport.join(2)])
    with pytest.raises(WaitTimeoutError, match=r"waited 5 s for workers \[1, 3\] to connect"):
        pool.wait_for_members(4, 5.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": "other"}, ClusterError, "worker 1 on node .* runs distsgd other, the server"),
        ({"data_digest": "other"}, ClusterError, "worker 1 on node .* sees other data than"),
        (
            {"probe": "other"},
            NumericsError,
            r"worker 1 on node here computes other bits than the server on node here: it has numpy",
        ),
    ],
)
def test_worker_that_would_compute_something_else_is_refused(
    change: Any, error: type[ClusterError], message: str
) -> None:
    pool, transport = pool_of(1)
    own = transport.workers[0].describe(1)
    transport.happened.append([Joined(1, replace(own, **change))])
    with pytest.raises(error, match=message):
        pool.wait_for_members(2, 5.0)
    assert pool.members == (0,)


def spoiled(*, gradient: float | None = None, **sums: Any) -> Fate:
    """A worker replies something else than it computed."""

    def fate(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        reply = transport.workers[worker].compute(request)
        if gradient is not None:
            transport.slots[worker][0] = gradient
        nodes = tuple(node._replace(**sums) for node in reply.nodes)
        transport.happened.append([Replied(worker, reply._replace(nodes=nodes))])

    return fate


def one_node_too_many(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
    reply = transport.workers[worker].compute(request)
    nodes = (*reply.nodes, reply.nodes[0])
    transport.happened.append([Replied(worker, reply._replace(nodes=nodes))])


def once(fate: Fate) -> Fate:
    """It happens to worker 1 at step 1 only."""

    def fates(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        is_it = worker == 1 and request.step == 1
        (fate if is_it else answers)(transport, worker, request)

    return fates


def pool_that_says(count: int, fate: Fate) -> tuple[WorkerPool, list[str]]:
    said: list[str] = []
    pool, _ = pool_of(count, fate, say=said.append)
    said.clear()
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
def test_worker_that_sends_an_invalid_partial_is_named_and_killed_and_the_step_continues(
    fate: Fate,
) -> None:
    pool, said = pool_that_says(3, once(fate))
    for step in STEPS:
        assert same(pool.gather(work(step)), expected_root(step))
    text, lost = said
    assert text.startswith("worker 1, step 1: sent an invalid partial for blocks ")
    assert lost == "worker 1 is lost (ended); others compute its blocks"
    assert set(pool.members) == {0, 2}


FATES = (
    answers,
    answers_and_dies,
    answers_late_ones_first,
    dies,
    dies_and_comes_back,
    is_silent,
    one_node_too_many,
    spoiled(loss_sum=float("nan")),
)


@pytest.mark.parametrize("seed", range(20))
def test_faults_in_any_order_change_no_bit(seed: int) -> None:
    def by_chance(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        (raw,) = raw_integers(seed, Purpose.FAULT, request.step, worker, count=1)
        transport.clock.now_s += 0.001 * float(raw >> 60)
        FATES[int(raw) % len(FATES)](transport, worker, request)

    clock = Clock()
    pool, transport = pool_of(5, by_chance, clock=clock)
    for step in range(30):
        assert same(pool.gather(work(step)), expected_root(step))
        for worker in set(range(5)) - set(pool.members):
            transport.happened.append([transport.join(worker)])
        clock.now_s += LOOK_S


class Diverged(FakeWorker):
    """Its losses are no numbers, whoever computes them."""

    def compute(self, request: ComputeRequest) -> Any:
        reply = super().compute(request)
        nodes = tuple(node._replace(loss_sum=float("nan")) for node in reply.nodes)
        return reply._replace(nodes=nodes)


def test_loss_that_is_no_number_here_too_is_nobodys_fault() -> None:
    pool, said = pool_that_says(3, once(spoiled(loss_sum=float("nan"))))
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
        def compute(self, request: ComputeRequest) -> Any:
            raise SystemExit(str(request))  # Stands for the end of the server's process.

    def fate(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        (dies if request.first <= 5 < request.last else answers)(transport, worker, request)

    def guard() -> CrashLoopGuard:
        found = CrashLoopGuard()
        found.remember_in(tmp_path / "suspects.json")
        return found

    pool, _ = pool_of(2, fate, crash_loop=guard())
    pool._own._handler = Mortal(SAMPLER)
    with pytest.raises(SystemExit):
        pool.gather(work(0))
    again, _ = pool_of(3, fate, crash_loop=guard())
    with pytest.raises(ClusterError, match="3 processes died one after the other on blocks"):
        again.gather(work(0))


def test_error_on_the_blocks_of_a_lost_worker_is_no_death(tmp_path: Path) -> None:
    """However often the run is resumed, it says the error and not that processes died."""

    class Wrong(FakeWorker):
        def compute(self, request: ComputeRequest) -> Any:
            raise OwnCodeError("m:make", f"ValueError: step {request.step}", "")

    for _ in range(4):
        guard = CrashLoopGuard()
        guard.remember_in(tmp_path / "suspects.json")
        pool, _transport = pool_of(2, dies, crash_loop=guard)
        pool._own._handler = Wrong(SAMPLER)
        with pytest.raises(OwnCodeError, match="ValueError: step 0"):
            pool.gather(work(0))
        assert not (tmp_path / "suspects.json").exists()
