"""Faults are injected: once, logged before, into real processes that die, stop, disconnect."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.base.named import Named, name_of
from distsgd.base.random_keys import Purpose, uniform
from distsgd.lab.faults.injection import NAME, FaultInjection
from distsgd.lab.faults.log import FILE, FaultLog
from distsgd.parallel.messages import ComputeRequest, RequestKind, Sums
from distsgd.parallel.observer import OBSERVER, Observer, ObserverContext
from distsgd.parallel.pool.pool import PoolSettings, Work, WorkerPool
from distsgd.parallel.service import serve
from distsgd.parallel.transport.interface import Address, BufferLayout, ServerGone
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.tree import most_nodes
from tests.fakes import FakeWorker, block_gradient, small_blocks
from tests.oracles import tree_over

SAMPLER = small_blocks(300, 64, lanes=8, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(33, most_nodes(SAMPLER.most_leaves), "float32")
WEIGHTS = uniform(1, Purpose.PROBE, count=33).astype(np.float32)
PROCESSES = multiprocessing.get_context("fork")


def order(step: int, kind: RequestKind = RequestKind.GRADIENT) -> ComputeRequest:
    return ComputeRequest(0, kind, step, 0, 2, 0, 0)


def observed(run: Path, number: int, *faults: str) -> FakeWorker:
    context = ObserverContext(role="worker", run=run, worker=number)
    return FakeWorker(SAMPLER, on_phase=FaultInjection(context, faults).on_phase)


def faulty(run: Path, *faults: str, number: int = 0) -> FakeWorker:
    worker = observed(run, number, *faults)
    worker.attach(WEIGHTS, np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), np.float32))
    assert worker.describe(number).worker == number
    return worker


def test_dropped_worker_hangs_up_once(tmp_path: Path) -> None:
    worker = faulty(tmp_path, "drop worker at step 2")
    worker.compute(order(1))
    with pytest.raises(ServerGone):
        worker.compute(order(2))
    worker.compute(order(2))
    faulty(tmp_path, "drop worker at step 2", number=1).compute(order(2))
    assert FaultLog(tmp_path / FILE).names() == ["drop worker at step 2 before_read"]


def test_worker_that_is_not_meant_lives(tmp_path: Path) -> None:
    worker = faulty(tmp_path, "drop worker 1 at step 0")
    worker.compute(order(5))
    assert not (tmp_path / FILE).exists()
    worker = faulty(tmp_path, "drop worker at step 0 during_evaluation")
    worker.compute(order(5))
    with pytest.raises(ServerGone):
        worker.compute(order(5, RequestKind.EVALUATE))


def test_slow_worker_is_slow_for_as_long_as_was_said_and_its_answers_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("distsgd.lab.faults.injection.time.sleep", slept.append)
    worker, other = (
        faulty(tmp_path, "slow worker at step 2 by 5 for 3 steps"),
        FakeWorker(SAMPLER),
    )
    other.attach(WEIGHTS, np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), np.float32))
    for step in range(7):
        assert worker.compute(order(step)).nodes == other.compute(order(step)).nodes
    assert len(slept) == 3
    assert min(slept) > 0
    slow = faulty(tmp_path / "..", "slow worker at step 0 by 5")
    slow.compute(order(0))
    slow.compute(order(1, RequestKind.EVALUATE))
    assert len(slept) == 5


def life(address: Address, number: int, run: Path, line: str) -> None:
    serve(observed(run, number, line), address, number)


class Nursery:
    """Worker processes that are started again when they end, as Ray does."""

    def __init__(self, address: Address, run: Path, line: str, count: int) -> None:
        self._life = (run, line)
        self._address = address
        self._alive = {number: self._start(number) for number in range(count)}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _start(self, number: int) -> Any:
        process = PROCESSES.Process(target=life, args=(self._address, number, *self._life))
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
def test_faults_in_worker_processes_change_no_bit_and_the_pool_is_whole_again(
    line: str, tmp_path: Path
) -> None:
    transport = SharedMemoryTransport(LAYOUT, secret=bytes(32), incarnation=0)
    pool = WorkerPool(
        LAYOUT,
        FakeWorker(SAMPLER),
        transport=transport,
        settings=PoolSettings("all", 20.0),
    )
    nursery = Nursery(transport.address, tmp_path, line, 3)
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
from distsgd.lab.faults.injection import FaultInjection
from distsgd.parallel.observer import ObserverContext
from distsgd.store.checkpoint import CheckpointStore
import numpy as np
contexts = [ObserverContext(role=role, run=Path(sys.argv[1])) for role in ("server", "driver")]
server, driver = (FaultInjection(context, [sys.argv[2]]).on_phase for context in contexts)
store = CheckpointStore(Path(sys.argv[1]) / "checkpoints")
save = lambda step: store.save(step, arrays={"weights": {"w": np.zeros(3)}}, state={})
for step in range(1, 6):
    server("before_update", step - 1)
    server("after_update", step)
    server("during_evaluation", step)
    server("during_checkpoint", step)
    save(step)
    driver("on_status", step)
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
        ("kill server at step 2 before_update", [1, 2], 2),
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


def test_server_injects_into_workers_in_phases_that_only_it_sees(tmp_path: Path) -> None:
    victims = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    faults = server(
        tmp_path, [victim.pid for victim in victims], "kill worker 1 at step 3 after_update"
    )
    faults.on_phase("before_update", 3)
    faults.on_phase("after_update", 2)
    assert [victim.poll() for victim in victims] == [None, None]
    faults.on_phase("after_update", 3)
    assert victims[1].wait(10) == -signal.SIGKILL
    assert victims[0].poll() is None
    faults.on_phase("after_update", 4)
    unknown = server(tmp_path, [None], "kill worker at step 1 after_update")
    unknown.on_phase("after_update", 5)
    assert victims[0].poll() is None
    assert len(FaultLog(tmp_path / FILE).read()) == 1
    victims[0].kill()
    victims[0].wait()


def server(run: Path, pids: list[int | None], *faults: str) -> FaultInjection:
    context = ObserverContext(
        role="server",
        run=run,
        members=lambda: tuple(range(len(pids))),
        process_of=lambda worker: pids[worker],
    )
    return FaultInjection(context, faults)


def test_driver_that_is_not_meant_lives(tmp_path: Path) -> None:
    context = ObserverContext(role="driver", run=tmp_path)
    FaultInjection(context, ["kill driver at step 9"]).on_phase("on_status", 8)
    assert not (tmp_path / FILE).exists()


def test_summary_report_and_planned_deaths_are_those_of_the_log(tmp_path: Path) -> None:
    log = FaultLog(tmp_path / FILE)
    for key, facts in [("kill worker at step 1", {"worker": 2}), ("kill server at step 2", {})]:
        assert log.claim(key, **facts)
    injection = FaultInjection(ObserverContext(role="driver", run=tmp_path))
    assert injection.summary() == {"faults": ["kill worker at step 1", "kill server at step 2"]}
    assert injection.report() == "injected faults: kill worker (1), kill server (1)"
    assert injection.planned_server_deaths() == 1


def test_name_of_the_observer_is_that_of_the_class(tmp_path: Path) -> None:
    assert name_of(FaultInjection) == NAME
    context = ObserverContext(role="driver", run=tmp_path)
    assert isinstance(
        Named(NAME, {"faults": ["kill driver at step 9"]}).make(OBSERVER, context), Observer
    )


@pytest.mark.parametrize(
    ("faults", "has_workers", "problems"),
    [
        (["kill server at step 1", "kill driver at step 2"], False, []),
        (["kill worker at step 1"], True, []),
        (["kill worker at step 1"], False, ["parallel.workers is 0"]),
        (["kill everybody", "kill server at step 1", "nonsense"], True, ["everybody", "nonsense"]),
        ("kill worker at step 1", True, ["must be a list"]),
        (7, True, ["must be a list"]),
        ([7], True, ['"7", which cannot be read']),
    ],
)
def test_check_tells_every_line_that_is_no_fault(
    faults: object, problems: list[str], *, has_workers: bool
) -> None:
    found = list(FaultInjection.check({"faults": faults}, has_workers=has_workers))
    assert len(found) == len(problems)
    assert all(problem in text for problem, text in zip(problems, found, strict=True))
