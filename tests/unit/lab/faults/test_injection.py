"""Faults are done: once, written down before, by real processes that die, stop, hang up."""

from __future__ import annotations

import json
import multiprocessing
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.errors import CheckpointError
from distsgd.lab.faults.injection import (
    FILE,
    Chaos,
    DriverFaults,
    FaultLog,
    FaultyWorker,
    ServerFaults,
)
from distsgd.lab.faults.plan import FaultPlan
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.pool import PoolSettings, Work, WorkerPool
from distsgd.parallel.service import serve
from distsgd.parallel.transport.buffers import BufferLayout
from distsgd.parallel.transport.interface import Address, ServerGone
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.tree import Sums, most_nodes
from tests.fakes import FakeWorker, block_gradient, small_blocks
from tests.oracles import tree_over

SAMPLER = small_blocks(300, 64, lanes=8, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(33, most_nodes(SAMPLER.most_leaves), "float32")
WEIGHTS = uniform(1, Purpose.PROBE, count=33).astype(np.float32)
PROCESSES = multiprocessing.get_context("fork")


def order(step: int, kind: RequestKind = RequestKind.GRADIENT) -> ComputeRequest:
    return ComputeRequest(0, kind, step, 0, 2, 0, 0)


def test_fault_is_claimed_once_by_whoever_comes_first_and_the_log_is_private(
    tmp_path: Path,
) -> None:
    first, second = FaultLog(tmp_path / FILE), FaultLog(tmp_path / FILE)
    assert first.claim("a", step=1)
    assert not first.claim("a", step=2)
    assert not second.claim("a", step=3)
    assert second.claim("b", step=4)
    assert [(entry["fault"], entry["step"]) for entry in first.read()] == [("a", 1), ("b", 4)]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def claim_all(path: Path, start: Any, won: Any) -> None:
    start.wait()
    log = FaultLog(path)
    won.put(sum(log.claim(str(key)) for key in range(50)))


def test_processes_that_claim_at_once_do_not_share_a_fault(tmp_path: Path) -> None:
    start, won = PROCESSES.Barrier(4), PROCESSES.Queue()
    claimers = [
        PROCESSES.Process(target=claim_all, args=(tmp_path / FILE, start, won)) for _ in range(4)
    ]
    for claimer in claimers:
        claimer.start()
    assert sum(won.get(timeout=20) for _ in claimers) == 50
    for claimer in claimers:
        claimer.join(20)
    assert len(FaultLog(tmp_path / FILE).read()) == 50


@pytest.mark.parametrize("tail", [b'{"fault": "b"', b"\x00\xff", b"[1]\n", b"nonsense\n"])
def test_line_that_a_crash_cut_is_passed_over(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / FILE
    assert FaultLog(path).claim("a")
    path.write_bytes(path.read_bytes() + tail)
    assert FaultLog(path).names() == ["a"]
    assert FaultLog(path).claim("b")
    assert not FaultLog(path).claim("a")
    assert FaultLog(path).names() == ["a", "b"]


def test_log_that_cannot_be_written_means_no_fault_and_one_that_cannot_be_read_is_named(
    tmp_path: Path,
) -> None:
    assert not FaultLog(tmp_path / "gone" / FILE).claim("a")
    assert FaultLog(tmp_path / "gone" / FILE).read() == []
    (tmp_path / FILE).mkdir()
    with pytest.raises(CheckpointError, match=FILE):
        FaultLog(tmp_path / FILE).read()


def faulty(plan: FaultPlan, run: Path, number: int = 0) -> FaultyWorker:
    worker = FaultyWorker(FakeWorker(SAMPLER), Chaos(plan, run))
    worker.attach(WEIGHTS, np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), np.float32))
    assert worker.describe(number).worker == number
    return worker


def test_dropped_worker_hangs_up_once(tmp_path: Path) -> None:
    plan = FaultPlan().drop(step=2)
    worker = faulty(plan, tmp_path)
    worker.compute(order(1))
    with pytest.raises(ServerGone):
        worker.compute(order(2))
    worker.compute(order(2))
    faulty(plan, tmp_path, 1).compute(order(2))
    assert FaultLog(tmp_path / FILE).names() == [str(plan.faults[0])]


def test_worker_that_is_not_meant_lives(tmp_path: Path) -> None:
    worker = faulty(FaultPlan().drop(worker=1, step=0), tmp_path)
    worker.compute(order(5))
    assert not (tmp_path / FILE).exists()
    worker = faulty(FaultPlan().drop(step=0, phase="during_evaluation"), tmp_path)
    worker.compute(order(5))
    with pytest.raises(ServerGone):
        worker.compute(order(5, RequestKind.EVALUATE))


def test_slow_worker_is_slow_for_as_long_as_was_said_and_its_answers_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("distsgd.lab.faults.injection.time.sleep", slept.append)
    worker, other = (
        faulty(FaultPlan().slow(step=2, factor=5, steps=3), tmp_path),
        FakeWorker(SAMPLER),
    )
    other.attach(WEIGHTS, np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), np.float32))
    for step in range(7):
        assert worker.compute(order(step)).nodes == other.compute(order(step)).nodes
    assert len(slept) == 3
    assert min(slept) > 0


def life(address: Address, number: int, chaos: Chaos) -> None:
    serve(FaultyWorker(FakeWorker(SAMPLER), chaos), address, number)


class Nursery:
    """Worker processes that are started again when they end, as Ray does."""

    def __init__(self, address: Address, chaos: Chaos, count: int) -> None:
        self._address, self._chaos = address, chaos
        self._alive = {number: self._start(number) for number in range(count)}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _start(self, number: int) -> Any:
        process = PROCESSES.Process(target=life, args=(self._address, number, self._chaos))
        process.start()
        return process

    def _look(self) -> None:
        while not self._is_over.wait(0.01):
            for number, process in self._alive.items():
                if not process.is_alive():
                    self._alive[number] = self._start(number)

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()
        for process in self._alive.values():
            process.kill()
            process.join()


def expected_root(step: int) -> tuple[Array, Sums]:
    return tree_over(
        SAMPLER.partition(step).blocks,
        lambda block: block_gradient(WEIGHTS, step, block),
        lambda left, right: (left[0] + right[0], left[1].joined(right[1])),
    )


LINES = [
    *[f"kill worker at step 2 {phase}" for phase in ("before_read", "after_compute")],
    "kill worker every 40 steps",
    "stop worker at step 3",
    "drop worker every 30 steps",
    "slow worker at step 5 by 10 for 20 steps",
    "random 1 in 20 steps seed 1",
]


@pytest.mark.parametrize("line", LINES)
def test_processes_that_suffer_change_no_bit_and_the_crew_is_whole_again(
    line: str, tmp_path: Path
) -> None:
    transport = SharedMemoryTransport(LAYOUT, secret=bytes(32), incarnation=0)
    pool = WorkerPool(
        LAYOUT,
        FakeWorker(SAMPLER),
        transport=transport,
        settings=PoolSettings("all", 20.0),
    )
    plan = FaultPlan.parse([line])
    nursery = Nursery(transport.address, Chaos(plan, tmp_path), 3)
    try:
        pool.wait_for_members(3, 20.0)
        pool.weights[:] = WEIGHTS
        for step in range(100):
            num_next = len(SAMPLER.partition(step + 1).blocks)
            root = pool.gather(Work(RequestKind.GRADIENT, step, SAMPLER.partition(step), num_next))
            gradient, sums = expected_root(step)
            assert root.gradient_sum.tobytes() == gradient.tobytes()
            assert root.sums == sums
        assert FaultLog(tmp_path / FILE).read()
    finally:
        pool.close()
        nursery.end()


PROGRAM = """
import os, sys
from pathlib import Path
from distsgd.lab.faults.injection import Chaos, DriverFaults, ServerFaults
from distsgd.lab.faults.plan import FaultPlan
from distsgd.store.checkpoint import CheckpointStore
import numpy as np
chaos = Chaos(FaultPlan.parse([sys.argv[2]]), Path(sys.argv[1]))
server = ServerFaults(chaos, lambda: (), lambda worker: None)
store = CheckpointStore(Path(sys.argv[1]) / "checkpoints")
save = lambda step: store.save(step, arrays={"weights": {"w": np.zeros(3)}}, state={})
for step in range(1, 6):
    server("before_apply", step - 1)
    server("after_apply", step)
    server("during_evaluation", step)
    server("during_checkpoint", step)
    save(step)
    DriverFaults(chaos)(step)
    print(step, flush=True)
"""


def lives(run: Path, line: str) -> tuple[int, list[int]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(run), line],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "done", "saved"),
    [
        ("kill server at step 2 before_apply", [1, 2], 2),
        ("kill server at step 3", [1, 2], 2),
        ("kill server at step 3 during_evaluation", [1, 2], 2),
        ("kill server at step 3 during_checkpoint", [1, 2], 2),
        ("kill driver at step 3", [1, 2], 3),
    ],
)
def test_server_and_driver_die_once_where_they_were_told_to(
    line: str, done: list[int], saved: int, tmp_path: Path
) -> None:
    assert lives(tmp_path, line) == (-signal.SIGKILL, done)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    is_cut = line.endswith("during_checkpoint")
    assert any(name.startswith(".staging-step-") for name in names) == is_cut
    assert max(name for name in names if name.startswith("step-")) == f"step-{saved:012d}"
    assert lives(tmp_path, line) == (0, [1, 2, 3, 4, 5])
    (entry,) = [json.loads(text) for text in (tmp_path / FILE).read_text().splitlines()]
    assert entry["fault"].startswith(line)


def test_server_hurts_workers_in_phases_that_only_it_sees(tmp_path: Path) -> None:
    victims = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    chaos = Chaos(FaultPlan().kill(worker=1, step=3, phase="after_apply"), tmp_path)
    faults = ServerFaults(chaos, lambda: (0, 1), lambda worker: victims[worker].pid)
    faults("before_apply", 3)
    faults("after_apply", 2)
    assert [victim.poll() for victim in victims] == [None, None]
    faults("after_apply", 3)
    assert victims[1].wait(10) == -signal.SIGKILL
    assert victims[0].poll() is None
    faults("after_apply", 4)
    unknown = ServerFaults(
        Chaos(FaultPlan().kill(step=1, phase="after_apply"), tmp_path), lambda: (0,), lambda _: None
    )
    unknown("after_apply", 5)
    assert victims[0].poll() is None
    assert len(FaultLog(tmp_path / FILE).read()) == 1
    victims[0].kill()
    victims[0].wait()


def test_driver_that_is_not_meant_lives(tmp_path: Path) -> None:
    DriverFaults(Chaos(FaultPlan.parse(["kill driver at step 9"]), tmp_path))(8)
    assert not (tmp_path / FILE).exists()
