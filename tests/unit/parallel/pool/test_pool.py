from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distsgd.parallel.messages import ComputeRequest, RequestKind, Sums
from distsgd.parallel.pool.autotuner import MOST_TRIAL_STEPS, Assigner, AssignmentKind, process_sets
from distsgd.parallel.pool.members import SLOW_FLOOR_S, SLOW_STEPS
from distsgd.parallel.pool.pool import LOOK_S, Work
from distsgd.parallel.transport.interface import Lost
from distsgd.parallel.tree import most_nodes
from tests.fakes import NUM_TEST_ROWS, block_gradient
from tests.oracles import tree_over
from tests.unit.parallel.pool.loop_transport import (
    SAMPLER,
    STEPS,
    WEIGHTS,
    Clock,
    LoopTransport,
    WithServer,
    answers,
    answers_after,
    answers_late_ones_first,
    expected_root,
    pool_of,
    same,
    work,
)


def test_the_fakes_show_every_change_of_order() -> None:
    parts = [block_gradient(WEIGHTS, 0, block)[0] for block in SAMPLER.partition(0).blocks]
    assert np.add.reduce(parts).tobytes() != expected_root(0)[0].tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 40])
def test_root_is_the_same_bits_for_any_number_of_workers(count: int) -> None:
    pool, _ = pool_of(count)
    for step in STEPS:
        assert same(pool.gather(work(step)), expected_root(step))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_root_is_the_same_bits_by_every_way_of_the_autotuner(count: int) -> None:
    pool, _ = pool_of(
        count, answers_after(0.9 * SLOW_FLOOR_S / count), assigner=Assigner("autotune", cores=9)
    )
    tried = set()
    for _ in range(20 * MOST_TRIAL_STEPS):
        assert same(pool.gather(work(0)), expected_root(0))
        tried.add(pool.computed_by)
        if pool.is_settled and len(tried) > 1:
            break
    assert pool.is_settled
    assert tried == set(process_sets(range(count), len(SAMPLER.partition(0).blocks)))


def test_workers_join_and_compute_also_where_assertions_are_off() -> None:
    program = """if True:
        from tests.unit.parallel.pool.loop_transport import expected_root, pool_of, same, work

        pool, _ = pool_of(3)
        print(__debug__, pool.members, same(pool.gather(work(0)), expected_root(0)))
    """
    run = [sys.executable, "-O", "-c", program]
    ended = subprocess.run(
        run, cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == "False (0, 1, 2) True\n", ended.stderr


def test_worker_for_which_step_after_step_waits_backs_off() -> None:
    def is_slow(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        (answers if worker else answers_after(0.025))(transport, worker, request)

    said: list[str] = []
    pool, _ = pool_of(3, is_slow, say=said.append)
    said.clear()
    for _ in range(SLOW_STEPS + 1):
        assert same(pool.gather(work(0)), expected_root(0))
    assert pool.computed_by == (1, 2)
    assert said == ["worker 0 is slow, seen at step 0; others compute its blocks"]


@pytest.mark.parametrize("has_server", [True, False])
def test_stale_and_foreign_reports_are_not_looked_at(*, has_server: bool) -> None:
    pool, _ = pool_of(3, answers_late_ones_first, assigner=WithServer() if has_server else None)
    for step in STEPS:
        assert same(pool.gather(work(step)), expected_root(step))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("leaves", [1, 8])
def test_evaluation_sums_all_blocks_whatever_their_number(count: int, leaves: int) -> None:
    # Steps of one block mean two slots; 17 test blocks leave workers more nodes than that.
    pool, transport = pool_of(count)
    partition = SAMPLER.blocking.evaluation(NUM_TEST_ROWS)
    slots = most_nodes(leaves)
    transport.slots = {worker: slots_SP[:slots] for worker, slots_SP in transport.slots.items()}
    pool._own._slots = pool._own._slots[:slots]
    sums = tree_over(partition.blocks, lambda b: block_gradient(WEIGHTS, 3, b)[1], Sums.joined)
    assert pool.gather(Work(RequestKind.EVALUATE, 3, partition)).sums == sums


def test_worker_that_joins_in_the_middle_works_in_the_next_step() -> None:
    seen: list[tuple[int, int]] = []

    def fates(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        seen.append((request.step, worker))
        if request.step == 0:
            transport.happened.append([transport.join(1)])
        answers(transport, worker, request)

    pool, _ = pool_of(1, fates)
    for step in (0, 1):
        assert same(pool.gather(work(step)), expected_root(step))
    assert seen == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize("kind", ["all", "autotune"])
def test_worker_that_joins_a_server_that_computes_alone_is_seen(kind: AssignmentKind) -> None:
    clock = Clock()
    pool, transport = pool_of(1, assigner=Assigner(kind), clock=clock)
    transport.happened.append([Lost(0, "killed")])
    clock.now_s += LOOK_S
    pool.gather(work(0))
    assert list(pool.members) == []
    transport.happened.append([transport.join(0)])
    clock.now_s += LOOK_S
    assert same(pool.gather(work(1)), expected_root(1))
    assert list(pool.members) == [0]


def test_orders_name_the_blocks_that_a_worker_may_expect_next() -> None:
    requests: list[ComputeRequest] = []

    def fates(transport: LoopTransport, worker: int, request: ComputeRequest) -> None:
        requests.append(request)
        answers(transport, worker, request)

    pool, _ = pool_of(2, fates)
    for step in (0, 1):
        pool.gather(work(step))
    assert [request[5:7] for request in requests[:2]] == [request[3:5] for request in requests[2:]]


def test_root_can_be_read_until_the_next_step_and_workers_see_the_weights() -> None:
    pool, transport = pool_of(3)
    root = pool.gather(work(0))
    pool.weights[:] = 0
    assert same(root, expected_root(0))
    assert not transport.weights.any()
    pool.close()
    assert transport.is_closed
