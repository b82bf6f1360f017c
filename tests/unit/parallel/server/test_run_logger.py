from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distsgd.errors import CheckpointError
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.optim.rules import Momentum
from distsgd.optim.schedules import Constant
from distsgd.parallel.messages import Sums
from distsgd.parallel.pool.reduction import Root
from distsgd.parallel.server.run_logger import MOST_SAVING, RunLogger
from distsgd.parallel.server.spec import LogSpec, UpdateSpec
from distsgd.parallel.server.training import Training
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import DigestChain, DigestLog, EvaluationLog, EvaluationRow, read_history
from distsgd.store.run_directory import RunDirectory

MODEL = Network([Dense(2)], "quadratic", (3,))
P = MODEL.num_parameters


class Clock:
    """Time, as a test has it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Session:
    """One process's training and its run_logger, over a run."""

    def __init__(
        self,
        run: RunDirectory,
        *,
        keep: int = 3,
        every_s: float = 0.0,
        every_steps: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        spec = UpdateSpec(Momentum(), Constant(0.1), None, False, 1, 4)
        self.training = Training(spec, np.zeros(P, np.float32))
        record = LogSpec(run.path, 2, every_s, every_steps, keep)
        self.messages: list[str] = []
        self.run_logger = RunLogger(
            RunDirectory.open(record.run),
            record,
            MODEL,
            say=self.messages.append,
            clock=clock or Clock(),
        )

    def resume(self) -> float | None:
        return self.run_logger.resume(self.training, on_message=self.messages.append)

    def train(self, until: int) -> None:
        training = self.training
        while training.step < until:
            gradient = np.sin(np.arange(P) + training.step).astype(np.float32)
            row = training.apply(
                Root(Sums(2, 1.0, 0, 0.0, 0.0), gradient, 1.0), float(training.step)
            )
            self.run_logger.step_done(training, row)

    def evaluate(self, loss: float) -> None:
        row = EvaluationRow(self.training.step, self.training.epoch, loss, 0.5, 10)
        self.run_logger.evaluated(row, self.training, seconds=2.0)

    def save(self, seconds: float = 2.0) -> bool:
        return self.run_logger.save(self.training, seconds=seconds)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run")
    run.write_json(run.config_path, {})
    return run


def steps_on_disk(run: RunDirectory) -> dict[str, list[int]]:
    return {
        "history": read_history(run.history)["step"].to_pylist(),
        "digests": [row.step for row in DigestLog(run.digests_path).read()],
        "evaluations": [row.step for row in EvaluationLog(run.evaluations_path).read()],
        "checkpoints": list(CheckpointStore(run.checkpoints).steps()),
    }


def record_of(run: RunDirectory) -> tuple[object, ...]:
    """All that a run says of how it went."""
    return (
        read_history(run.history).to_pylist(),
        DigestLog(run.digests_path).read(),
        EvaluationLog(run.evaluations_path).read(),
    )


def test_nothing_is_on_disk_before_a_save_and_everything_after(run: RunDirectory) -> None:
    session = Session(run)
    session.train(5)
    session.evaluate(0.7)
    assert not any(steps_on_disk(run).values())
    assert session.save()
    assert steps_on_disk(run) == {
        "history": [1, 2, 3, 4, 5],
        "digests": [2, 4],
        "evaluations": [5],
        "checkpoints": [5],
    }


def test_digests_are_the_chain_over_the_steps_they_name(run: RunDirectory) -> None:
    session, chain, digests = Session(run), DigestChain(), []
    for step in (2, 4, 6):
        session.train(step)
        digests.append((step, chain.extend(step, session.training.weights)))
    session.train(7)
    session.save()
    assert [tuple(row) for row in DigestLog(run.digests_path).read()] == digests


def test_resume_without_a_checkpoint_changes_nothing_and_says_so(run: RunDirectory) -> None:
    session = Session(run)
    assert session.resume() is None
    assert session.training.step == 0


@pytest.mark.parametrize("saved", [1, 2, 3, 6])
def test_resumed_run_leaves_the_record_of_one_that_went_through(
    run: RunDirectory, tmp_path: Path, saved: int
) -> None:
    whole_run = RunDirectory.create(tmp_path / "whole")
    whole_run.write_json(whole_run.config_path, {})
    whole, first, second = Session(whole_run), Session(run), Session(run)
    whole.train(3)
    whole.evaluate(0.9)
    whole.train(8)
    first.train(min(3, saved))
    if saved >= 3:
        first.evaluate(0.9)
    first.train(saved)
    whole.save()
    first.save()
    first.train(saved + 5)  # Never saved: the process is killed.
    assert second.resume() == 2.0
    assert second.training.step == saved
    second.train(3)
    if saved < 3:
        second.evaluate(0.9)
    second.train(8)
    second.save()
    assert record_of(run) == record_of(whole_run)
    assert second.training.weights.tobytes() == whole.training.weights.tobytes()


def test_resume_drops_what_was_recorded_beyond_the_checkpoint(run: RunDirectory) -> None:
    first = Session(run)
    first.train(4)
    first.save()
    first.train(8)
    first.evaluate(0.5)
    first.save()
    # The newest checkpoint is damaged, so that rows on disk lead further than the one before it.
    (run.checkpoints / "step-000000000008" / "weights.safetensors").write_bytes(b"")
    second = Session(run)
    second.resume()
    assert second.training.step == 4
    assert second.messages
    on_disk = steps_on_disk(run)
    assert (on_disk["history"], on_disk["digests"], on_disk["evaluations"]) == (
        [1, 2, 3, 4],
        [2, 4],
        [],
    )


def test_best_state_is_written_with_the_next_save(run: RunDirectory) -> None:
    session, store = Session(run, keep=1), CheckpointStore(run.checkpoints)
    weights = {}
    for step, loss in ((2, 0.9), (4, 0.3), (6, 0.4), (8, float("nan")), (10, 0.5)):
        session.train(step)
        session.evaluate(loss)
        weights[step] = session.training.weights.copy()
    session.save()
    assert store.best_step() == 4
    assert store.steps() == (4, 10)
    found = store.load(run.checkpoints / "step-000000000004")
    assert found.arrays["weights"]["layers.0.weight"].tobytes() == weights[4][:6].tobytes()
    assert found.state["training"]["step"] == 4
    assert session.run_logger.best_test_loss == 0.3


def test_best_is_remembered_over_a_resume(run: RunDirectory) -> None:
    first = Session(run, keep=1)
    first.train(2)
    first.evaluate(0.3)
    first.save()
    second = Session(run, keep=1)
    second.resume()
    assert second.run_logger.best_test_loss == 0.3
    assert second.run_logger.evaluation == EvaluationRow(2, 0.5, 0.3, 0.5, 10)
    second.train(4)
    second.evaluate(0.4)
    second.save()
    assert CheckpointStore(run.checkpoints).best_step() == 2
    second.evaluate(0.2)


def test_state_that_is_the_best_is_written_once_as_that(run: RunDirectory) -> None:
    session = Session(run)
    session.train(2)
    session.evaluate(0.3)
    session.save()
    store = CheckpointStore(run.checkpoints)
    assert (store.steps(), store.best_step()) == ((2,), 2)
    assert Session(run).resume() == 2.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(run: RunDirectory, value: float) -> None:
    session = Session(run)
    session.train(2)
    session.save()
    session.train(4)
    session.training.weights[1] = value
    assert not session.save()
    assert steps_on_disk(run)["checkpoints"] == [2]
    assert steps_on_disk(run)["history"] == [1, 2]
    second = Session(run)
    second.resume()
    assert second.training.step == 2


def test_second_save_of_a_step_writes_nothing(run: RunDirectory) -> None:
    session = Session(run)
    session.train(2)
    session.save()
    path = run.checkpoints / "step-000000000002"
    inode = path.stat().st_ino
    assert session.save()
    assert path.stat().st_ino == inode


def test_checkpoints_are_due_by_steps_and_by_time(run: RunDirectory) -> None:
    clock = Clock()
    assert not any(Session(run).run_logger.checkpoint_is_due(step) for step in range(1, 50))
    by_steps = Session(run, every_steps=3).run_logger
    assert [step for step in range(1, 10) if by_steps.checkpoint_is_due(step)] == [3, 6, 9]
    by_time = Session(run, every_s=10.0, clock=clock)
    by_time.train(1)
    clock.now_s = 9.5
    assert not by_time.run_logger.checkpoint_is_due(1)
    clock.now_s = 10.0
    assert by_time.run_logger.checkpoint_is_due(1)
    by_time.save()
    assert not by_time.run_logger.checkpoint_is_due(1)


def test_checkpoint_of_another_network_is_refused(run: RunDirectory) -> None:
    session = Session(run)
    session.train(1)
    session.save()
    record = LogSpec(run.path, 2, 0.0, None, 3)
    other = Network([Dense(5)], "quadratic", (3,))
    spec = UpdateSpec(Momentum(), Constant(0.1), None, False, 1, 4)
    training = Training(spec, np.zeros(other.num_parameters, np.float32))
    with pytest.raises(CheckpointError, match="does not fit this run"):
        RunLogger(run, record, other, say=session.messages.append).resume(
            training, on_message=session.messages.append
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"best_test_loss": "low"}, "state.best_test_loss is 'low'"),
        ({"seconds": None}, "state.seconds is None"),
        ({"digest": 7}, "state.digest is 7"),
        ({"digest": "7"}, "must be 64 hexadecimal digits"),
        ({"training": None}, "state.training is None"),
    ],
)
def test_state_that_is_forged_is_refused(
    run: RunDirectory, change: dict[str, object], reason: str
) -> None:
    session, store = Session(run), CheckpointStore(run.checkpoints)
    session.train(2)
    session.save()
    found = store.load(run.checkpoints / "step-000000000002")
    store.save(2, arrays=found.arrays, state=dict(found.state) | change)
    with pytest.raises(CheckpointError, match=reason):
        Session(run).resume()


def test_state_of_another_step_is_refused(run: RunDirectory) -> None:
    session, store = Session(run), CheckpointStore(run.checkpoints)
    session.train(2)
    session.save()
    found = store.load(run.checkpoints / "step-000000000002")
    store.save(4, arrays=found.arrays, state=found.state)
    with pytest.raises(CheckpointError, match="that of step 2; must be that of step 4"):
        Session(run).resume()


class SlowDisk(Clock):
    """Every look at the clock finds it a second on, so that a save takes one."""

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_checkpoints_that_take_long_come_more_rarely(run: RunDirectory) -> None:
    clock = SlowDisk()
    session = Session(run, every_s=10.0, clock=clock)
    session.train(2)
    assert session.save()
    saved_at_s = clock.now_s - 1.0
    while not session.run_logger.checkpoint_is_due(2):
        pass
    assert clock.now_s - saved_at_s == pytest.approx(1.0 / MOST_SAVING, abs=1.0)
