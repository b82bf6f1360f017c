"""The loop's evaluations and its early end: the same through stops, deaths and other servers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distsgd.base.arrays import Array
from distsgd.data.sampler import Block
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.messages import ComputeRequest, RequestKind, Sums
from distsgd.parallel.runner import Runner
from distsgd.parallel.server.evaluation_grid import EvaluationGrid
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_runner import EpochEnd, EventHooks
from distsgd.parallel.server.target import Target
from distsgd.store.logs import EvaluationLog, EvaluationRow
from distsgd.store.run_directory import RunDirectory
from tests.fakes import FakeBlocks, FakeWorker, small_blocks
from tests.unit.parallel.server.test_server import (
    SAMPLER,
    TOTAL_STEPS,
    Killed,
    new_run,
    record_of,
    server_spec,
    train,
)

__all__ = ["new_run"]

GRID = EvaluationGrid(20, "samples")  # Of 50 rows in batches of 16, 16, 16 and 2.
ON_GRID = [2, 3, 5, 6, 8, 9]


def spec_of(run: Path, *, target: Target | None = None) -> ServerSpec:
    return replace(server_spec(run), evaluate_every=GRID, target=target)


def evaluations_of(run: Path) -> tuple[EvaluationRow, ...]:
    return tuple(EvaluationLog(RunDirectory.open(run).evaluations_path).read())


class OfFourPlaces(Network):
    """A network as if its rows had four classes each."""

    target_shape = (4,)


class ThreeOfFour(FakeBlocks):
    """Blocks whose rows have four classes each, of which three are right."""

    def compute(self, batch: tuple[int, Block], weights_P: Array, gradient_P: Array | None) -> Sums:
        sums = super().compute(batch, weights_P, gradient_P)
        return sums._replace(correct=3 * sums.num_samples)


def test_accuracy_is_the_share_of_all_places_of_the_rows(new_run: Callable[[], Path]) -> None:
    path = new_run()
    spec = spec_of(path)
    model = OfFourPlaces([Dense(2)], "softmax_cross_entropy", (3,))
    spec = replace(spec, worker=replace(spec.worker, model=model))
    outcome = ParameterServer(spec, lambda asked: Runner(ThreeOfFour(asked), asked)).train()
    assert outcome.test_accuracy == 0.75
    assert {row.test_accuracy for row in evaluations_of(path)} == {0.75}


def at_most(loss: float | None) -> Target:
    assert loss is not None
    return Target("test_loss", at_least=False, value=loss)


@pytest.fixture
def target(new_run: Callable[[], Path]) -> tuple[Target, int]:
    """One that is met first in the middle of the run, and the step."""
    path = new_run()
    train(spec_of(path))
    rows = evaluations_of(path)
    lowest = min(rows[1:-1], key=lambda row: row.test_loss or math.inf)
    target = at_most(lowest.test_loss)
    assert next(row for row in rows if target.is_met(row)) == lowest
    return target, lowest.step


def test_samples_are_counted_over_short_batches_and_the_end_is_evaluated(
    new_run: Callable[[], Path],
) -> None:
    path = new_run()
    train(spec_of(path))
    assert [row.step for row in evaluations_of(path)] == ON_GRID
    path = new_run()
    train(replace(spec_of(path), evaluate_every=EvaluationGrid(10**9, "samples")))
    assert [row.step for row in evaluations_of(path)] == [TOTAL_STEPS]


@pytest.mark.parametrize(
    ("batch_rows", "used"),
    [(1, [20, 40, 60, 80, 100]), (7, [21, 42, 64, 85, 100]), (50, [50, 100])],
)
def test_grid_of_samples_is_the_same_for_all_batch_sizes(
    new_run: Callable[[], Path], batch_rows: int, used: list[int]
) -> None:
    sampler = small_blocks(50, batch_rows, lanes=4, lane_rows=4, block_rows=5)
    spec = spec_of(path := new_run())
    spec = replace(
        spec,
        worker=replace(spec.worker, sampler=sampler),
        update=replace(spec.update, steps_per_epoch=sampler.steps_per_epoch),
        total_steps=2 * sampler.steps_per_epoch,
    )
    train(spec)
    assert [sum(map(sampler.num_samples, range(row.step))) for row in evaluations_of(path)] == used


@pytest.mark.parametrize("every_steps", [None, 1, 3])
@pytest.mark.parametrize("kind", [RequestKind.GRADIENT, RequestKind.EVALUATE])
def test_run_killed_or_stopped_anywhere_has_the_same_evaluations_and_end(
    new_run: Callable[[], Path],
    target: tuple[Target, int],
    every_steps: int | None,
    kind: RequestKind,
) -> None:
    def spec_in(path: Path) -> ServerSpec:
        spec = spec_of(path, target=target[0])
        return replace(spec, record=replace(spec.record, checkpoint_every_steps=every_steps))

    whole_run = new_run()
    whole = train(spec_in(whole_run))
    assert (whole.status, whole.stopped_by, whole.steps) == ("done", "target", target[1])
    for step in range(whole.steps + (kind is RequestKind.EVALUATE)):
        path, seen = new_run(), list[int]()

        def kill(order: ComputeRequest, step: int = step, seen: list[int] = seen) -> None:
            if (order.kind, order.step) == (kind, step):
                seen.append(step)
                raise Killed

        if kind is RequestKind.GRADIENT or step in ON_GRID:
            with pytest.raises(Killed):
                train(spec_in(path), before=kill)
            assert seen == [step]
        else:
            train(spec_in(path), stop_in=step)
        assert train(spec_in(path)).weights_digest == whole.weights_digest
        assert record_of(path) == record_of(whole_run)


def test_server_that_died_between_evaluation_and_result_ends_without_a_step(
    new_run: Callable[[], Path], target: tuple[Target, int]
) -> None:
    path = new_run()
    first = train(spec_of(path, target=target[0]))
    result = RunDirectory.open(path).result_path
    result.unlink()
    computed: list[ComputeRequest] = []
    again = train(spec_of(path, target=target[0]), before=computed.append)
    assert not computed
    assert (again.stopped_by, again.steps) == ("target", target[1])
    assert again.weights_digest == first.weights_digest
    assert result.exists()


def test_target_that_only_the_evaluation_at_the_end_meets_is_what_ended_it(
    new_run: Callable[[], Path],
) -> None:
    path = new_run()
    assert train(replace(spec_of(path), total_steps=1)).stopped_by == "steps"
    (last,) = evaluations_of(path)
    spec = replace(spec_of(new_run(), target=at_most(last.test_loss)), total_steps=1)
    assert (train(spec).stopped_by, train(spec).steps) == ("target", 1)


def test_run_without_its_target_is_done_and_says_so(new_run: Callable[[], Path]) -> None:
    path = new_run()
    never = Target("test_accuracy", at_least=True, value=0.5)  # The fake worker has none right.
    outcome = train(spec_of(path, target=never))
    assert (outcome.status, outcome.stopped_by, outcome.steps) == ("done", "steps", TOTAL_STEPS)
    assert "the target test_accuracy >= 0.5 was not met" in str(outcome.advice)
    without = new_run()
    assert train(spec_of(without)).advice is None
    assert record_of(path) == record_of(without)


def test_replay_without_evaluations_is_not_ended_by_a_target(
    new_run: Callable[[], Path],
) -> None:
    at_once = Target("test_accuracy", at_least=True, value=0.0)
    assert train(spec_of(new_run(), target=at_once)).steps == ON_GRID[0]
    spec = replace(spec_of(new_run(), target=at_once), num_test_rows=0)
    assert train(spec).steps == TOTAL_STEPS


def test_evaluation_that_a_hook_prevented_is_made_when_the_run_is_resumed(
    new_run: Callable[[], Path],
) -> None:
    def fail(_: EpochEnd) -> None:
        raise ZeroDivisionError

    whole, path = new_run(), new_run()
    train(server_spec(whole))
    hooks = EventHooks(on_epoch_end=fail)
    broken = ParameterServer(
        server_spec(path), lambda asked: FakeWorker(asked.sampler), hooks=hooks
    )
    with pytest.raises(ZeroDivisionError):
        broken.train()
    assert evaluations_of(path) == ()
    train(server_spec(path))
    assert evaluations_of(path)[0].step == SAMPLER.steps_per_epoch
    assert record_of(path) == record_of(whole)
