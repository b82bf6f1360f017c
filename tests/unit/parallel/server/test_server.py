from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.errors import RunError, WaitTimeoutError
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.optim.rules import RULES
from distsgd.optim.schedules import Constant, Cosine
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind
from distsgd.parallel.server import server as server_module
from distsgd.parallel.server.evaluation_grid import EvaluationGrid
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import LogSpec, Outcome, PoolSpec, ServerSpec, UpdateSpec
from distsgd.parallel.service import serve
from distsgd.parallel.worker import WorkerSpec
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import DigestLog, EvaluationLog, read_history
from distsgd.store.run_directory import RunDirectory
from tests.fakes import NUM_TEST_ROWS, FakeWorker, small_blocks

SAMPLER = small_blocks(50, 16, lanes=4, lane_rows=4, block_rows=5)
TOTAL_STEPS = 2 * SAMPLER.steps_per_epoch + 1
MODEL = Network([Dense(2)], "quadratic", (3,))
Before = Callable[[ComputeRequest], None]


def server_spec(run: Path, *, num_workers: int = 0, rule: str = "momentum") -> ServerSpec:
    return ServerSpec(
        worker=WorkerSpec(
            Path("no data"), MODEL, SAMPLER, "float32", 0, False, True, NUM_TEST_ROWS
        ),
        update=UpdateSpec(
            RULES[rule](),
            Cosine(0.05, total_steps=TOTAL_STEPS),
            None,
            False,
            2,
            SAMPLER.steps_per_epoch,
        ),
        record=LogSpec(run, 1, 0.0, None, 2),
        pool=PoolSpec(num_workers, "all", "auto", 20.0, spin=True, secret=bytes(32)),
        total_steps=TOTAL_STEPS,
        evaluate_every=EvaluationGrid(SAMPLER.steps_per_epoch),
        num_test_rows=NUM_TEST_ROWS,
        init="glorot",
    )


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[[], Path]:
    """Makes run directories."""
    numbers = iter(range(1000))

    def make() -> Path:
        run = RunDirectory.create(tmp_path / f"run{next(numbers)}")
        run.write_json(run.config_path, {})
        return run.path

    return make


def train(
    spec: ServerSpec, *, stop_in: int | None = None, before: Before = lambda _: None
) -> Outcome:
    """Train in this thread; the desired to stop comes while step `stop_in` is computed."""

    def look(order: ComputeRequest) -> None:
        before(order)
        if order.kind is RequestKind.GRADIENT and order.step == stop_in:
            server.request_stop()

    server = ParameterServer(spec, lambda asked: FakeWorker(asked.sampler, look))
    return server.train()


def record_of(path: Path) -> tuple[Any, ...]:
    """All that a run leaves, but for the time it took."""
    run = RunDirectory.open(path)
    return (
        read_history(run.history).drop_columns(["seconds"]).to_pylist(),
        DigestLog(run.digests_path).read(),
        EvaluationLog(run.evaluations_path).read(),
        CheckpointStore(run.checkpoints).best_step(),
    )


def test_run_goes_to_its_end_and_evaluates_at_epoch_ends_and_there(
    new_run: Callable[[], Path],
) -> None:
    path = new_run()
    outcome = train(server_spec(path))
    assert (outcome.status, outcome.advice, outcome.steps) == ("done", None, TOTAL_STEPS)
    assert outcome.epochs == TOTAL_STEPS / SAMPLER.steps_per_epoch
    rows, digests, evaluations, _ = record_of(path)
    assert [row["step"] for row in rows] == list(range(2, TOTAL_STEPS + 1, 2))
    assert [row.step for row in digests] == list(range(1, TOTAL_STEPS + 1))
    epoch = SAMPLER.steps_per_epoch
    assert [row.step for row in evaluations] == [epoch, 2 * epoch, TOTAL_STEPS]
    assert {row.rows for row in evaluations} == {NUM_TEST_ROWS}
    assert outcome.test_loss == evaluations[-1].test_loss
    assert outcome.test_accuracy == 0.0
    assert TOTAL_STEPS in CheckpointStore(path / "checkpoints").steps()


def test_run_that_ends_with_an_epoch_is_evaluated_once_there(new_run: Callable[[], Path]) -> None:
    path = new_run()
    train(replace(server_spec(path), total_steps=SAMPLER.steps_per_epoch))
    assert [row.step for row in record_of(path)[2]] == [SAMPLER.steps_per_epoch]


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_run_stopped_after_any_step_goes_on_to_the_same_bits(
    new_run: Callable[[], Path], rule: str
) -> None:
    whole_run = new_run()
    whole = train(server_spec(whole_run, rule=rule))
    for step in range(TOTAL_STEPS):
        path = new_run()
        stopped = train(server_spec(path, rule=rule), stop_in=step)
        is_last = step + 1 == TOTAL_STEPS
        assert (stopped.status, stopped.steps) == ("done" if is_last else "interrupted", step + 1)
        assert step + 1 in CheckpointStore(path / "checkpoints").steps()
        resumed = train(server_spec(path, rule=rule))
        assert resumed.status == "done"
        assert resumed.weights_digest == whole.weights_digest
        assert (resumed.train_loss, resumed.test_loss) == (whole.train_loss, whole.test_loss)
        assert record_of(path) == record_of(whole_run)


def test_run_stopped_again_and_again_comes_to_the_same_end(new_run: Callable[[], Path]) -> None:
    whole_run, path = new_run(), new_run()
    whole = train(server_spec(whole_run))
    for step in range(TOTAL_STEPS):
        last = train(server_spec(path), stop_in=step)
    assert last.weights_digest == whole.weights_digest
    assert record_of(path) == record_of(whole_run)
    assert train(server_spec(path)).weights_digest == whole.weights_digest


class Killed(BaseException):
    """Stands for the end of a process in the middle of a step."""


KILLED = {
    RequestKind.GRADIENT: range(TOTAL_STEPS),
    RequestKind.EVALUATE: (SAMPLER.steps_per_epoch, 2 * SAMPLER.steps_per_epoch, TOTAL_STEPS),
}


@pytest.mark.parametrize("every_steps", [None, 1, 3])
@pytest.mark.parametrize("kind", KILLED)
def test_run_killed_in_any_step_goes_on_to_the_same_bits(
    new_run: Callable[[], Path], every_steps: int | None, kind: RequestKind
) -> None:
    def task_in(path: Path) -> ServerSpec:
        spec = server_spec(path)
        return replace(spec, record=replace(spec.record, checkpoint_every_steps=every_steps))

    whole_run = new_run()
    whole = train(task_in(whole_run))
    for step in KILLED[kind]:
        path = new_run()

        def kill(order: ComputeRequest, step: int = step) -> None:
            if (order.kind, order.step) == (kind, step):
                raise Killed

        with pytest.raises(Killed):
            train(task_in(path), before=kill)
        # An evaluation comes before the checkpoint of its step.
        last = step if kind is RequestKind.GRADIENT else step - 1
        saved = last - last % every_steps if every_steps else 0
        assert CheckpointStore(path / "checkpoints").steps()[-1:] == ((saved,) if saved else ())
        assert train(task_in(path)).weights_digest == whole.weights_digest
        assert record_of(path) == record_of(whole_run)


@pytest.mark.parametrize("transport", ["shared_memory", "zmq"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_no_bit_of_a_run(
    new_run: Callable[[], Path], num_workers: int, transport: Any
) -> None:
    alone_run, path = new_run(), new_run()
    alone = train(server_spec(alone_run))
    spec = server_spec(path, num_workers=num_workers)
    spec = replace(spec, pool=replace(spec.pool, transport=transport))
    server = ParameterServer(spec, lambda asked: FakeWorker(asked.sampler))
    workers = [
        threading.Thread(target=serve, args=(FakeWorker(SAMPLER), server.address(), number))
        for number in range(num_workers)
    ]
    for worker in workers:
        worker.start()
    outcome = server.train()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    assert outcome.weights_digest == alone.weights_digest
    assert record_of(path) == record_of(alone_run)
    status = server.status()
    assert (status.phase, status.step, status.num_workers) == ("ended", TOTAL_STEPS, num_workers)


def test_workers_that_do_not_come_are_named(
    new_run: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "JOIN_TIMEOUT_S", 0.05)
    server = ParameterServer(server_spec(new_run(), num_workers=2), lambda t: FakeWorker(t.sampler))
    with pytest.raises(WaitTimeoutError, match=r"workers \[0, 1\] to connect"):
        server.train()
    assert server.status().phase == "ended"


def test_run_that_another_has_is_refused(
    new_run: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LOCK_TIMEOUT_S", 0.05)
    path = new_run()
    with (
        RunDirectory.open(path).lock(1.0),
        pytest.raises(RunError, match="is in use by process"),
    ):
        train(server_spec(path))
    assert train(server_spec(path)).status == "done"


def test_run_that_cannot_be_had_lets_its_workers_go(
    new_run: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LOCK_TIMEOUT_S", 0.05)
    path = new_run()
    server = ParameterServer(server_spec(path, num_workers=1), lambda t: FakeWorker(t.sampler))
    with RunDirectory.open(path).lock(1.0), pytest.raises(RunError, match="is in use"):
        server.train()
    assert server.status().phase == "ended"
    assert serve(FakeWorker(SAMPLER), server.address(), 0) == 0


def test_next_incarnation_waits_for_no_worker_and_fewest_are_enough(
    new_run: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "JOIN_TIMEOUT_S", 0.05)
    alone = train(server_spec(new_run()))
    spec = server_spec(new_run(), num_workers=3)
    server = ParameterServer(spec, lambda asked: FakeWorker(asked.sampler), incarnation=1)
    assert server.train().weights_digest == alone.weights_digest
    assert any("is back" in message for message in server.status().messages)
    spec = server_spec(new_run(), num_workers=3)
    spec = replace(spec, pool=replace(spec.pool, least_workers=1))
    server = ParameterServer(spec, lambda asked: FakeWorker(asked.sampler))
    with pytest.raises(WaitTimeoutError, match=r"workers \[0\] to connect"):
        server.train()
    spec = server_spec(new_run(), num_workers=3)
    server = ParameterServer(spec, lambda asked: FakeWorker(asked.sampler))
    server.expect(0)
    assert server.train().weights_digest == alone.weights_digest


class BadWorker(FakeWorker):
    """From step 3 on its loss is no number."""

    def compute(self, order: ComputeRequest) -> ComputeReply:
        report = super().compute(order)
        if order.step < 3:
            return report
        return report._replace(
            nodes=tuple(node._replace(loss_sum=math.nan) for node in report.nodes)
        )


def test_diverged_run_says_so_and_keeps_what_was_saved(new_run: Callable[[], Path]) -> None:
    path = new_run()
    spec = server_spec(path)
    spec = replace(spec, record=replace(spec.record, checkpoint_every_steps=2))
    outcome = ParameterServer(spec, lambda asked: BadWorker(asked.sampler)).train()
    assert (outcome.status, outcome.steps) == ("diverged", 3)
    assert "learning_rate" in str(outcome.advice)
    assert CheckpointStore(path / "checkpoints").steps() == (2,)
    assert train(spec).status == "done"


def test_weights_that_overflow_are_not_saved_as_the_end(new_run: Callable[[], Path]) -> None:
    path = new_run()
    spec = replace(
        server_spec(path), initial_weights=np.full(MODEL.num_parameters, 1e30, np.float32)
    )
    rates = Constant(3e38)
    with np.errstate(over="ignore", invalid="ignore"):
        outcome = train(replace(spec, update=replace(spec.update, schedule=rates), total_steps=1))
    assert outcome.status == "diverged"
    assert "no longer finite" in str(outcome.advice)
    assert CheckpointStore(path / "checkpoints").steps() == ()


def test_given_weights_are_where_a_run_starts(new_run: Callable[[], Path]) -> None:
    weights = np.linspace(-1, 1, MODEL.num_parameters, dtype=np.float32)
    seen: list[Array] = []
    server = ParameterServer(
        replace(server_spec(new_run()), initial_weights=weights),
        lambda asked: FakeWorker(
            asked.sampler, lambda _: seen.append(server._training.weights.copy())
        ),
    )
    server.train()
    assert seen[0].tobytes() == weights.tobytes()


def test_run_without_test_rows_is_not_evaluated(new_run: Callable[[], Path]) -> None:
    path = new_run()
    outcome = train(replace(server_spec(path), num_test_rows=0))
    assert (outcome.status, outcome.test_loss, outcome.test_accuracy) == ("done", None, None)
    assert record_of(path)[2:] == ((), None)


def test_status_follows_the_run_from_another_thread(new_run: Callable[[], Path]) -> None:
    seen: list[tuple[str, int, int]] = []

    def look(_request: ComputeRequest) -> None:
        status = server.status()
        seen.append((status.phase, status.step, status.num_samples))

    server = ParameterServer(server_spec(new_run()), lambda asked: FakeWorker(asked.sampler, look))
    assert server.status().phase == "starting"
    assert server.train().status == "done"
    assert server.status().phase == "ended"
    expected = []
    num_samples = 0
    for step in range(TOTAL_STEPS):
        expected.append(("training", step, num_samples))
        num_samples += SAMPLER.num_samples(step)
        if (step + 1) % SAMPLER.steps_per_epoch == 0 or step + 1 == TOTAL_STEPS:
            expected.append(("evaluating", step + 1, num_samples))
    assert seen == expected
