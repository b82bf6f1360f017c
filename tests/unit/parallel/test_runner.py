"""What a runner asks of its worker, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.errors import ConfigError
from distsgd.models.own_errors import OwnCodeError
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.messages import ComputeRequest, RequestKind, Sums
from distsgd.parallel.runner import Runner, make_runner
from distsgd.parallel.tree import most_nodes
from distsgd.parallel.worker import BlockRows, WorkerSpec
from tests.fakes import NUM_TEST_ROWS, FakeBlocks, small_blocks

SAMPLER = small_blocks(100, 64, lanes=4, lane_rows=8, block_rows=3)
SPEC = WorkerSpec(
    Path("no data"),
    Network([Dense(1)], "quadratic", (1,)),
    SAMPLER,
    dtype="float32",
    seed=0,
    per_sample=False,
    has_classes=False,
    num_test_rows=NUM_TEST_ROWS,
)
NUM_BLOCKS = len(SAMPLER.partition(0).blocks)


class Watched:
    """Keeps what it is asked for; gives ones."""

    data_digest = "its data"

    def __init__(self, _: WorkerSpec) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.is_drawing = True

    def read(self, rows: BlockRows, buffer: int) -> tuple[int, int]:
        if self.is_drawing:
            rows.numbers_inplace(np.zeros(rows.num_rows, np.int64))
        self.asked.append(("read", rows.step, rows.block.number, buffer))
        return rows.step, rows.block.number

    def compute(self, batch: Any, weights_P: Array, gradient_P: Array | None) -> Sums:
        assert not weights_P.flags.writeable
        if gradient_P is not None:
            gradient_P.fill(1)
        self.asked.append(("compute", *batch, gradient_P is not None))
        return Sums(1, 1.0)

    def prefetch(self, rows: range) -> None:
        self.asked.append(("prefetch", rows))


def attached(worker: Watched, **options: Any) -> tuple[Runner, Array]:
    runner = Runner(worker, SPEC, **options)
    slots_SP = np.zeros((most_nodes(SAMPLER.most_leaves), 5), np.float32)
    weights_P = np.zeros(5, np.float32)
    weights_P.flags.writeable = False
    runner.attach(weights_P, slots_SP)
    return runner, slots_SP


def request(step: int, kind: RequestKind = RequestKind.GRADIENT) -> ComputeRequest:
    return ComputeRequest(0, kind, step, 0, 2, 1, 3)


def test_each_block_is_read_before_it_is_computed_and_sums_are_folded() -> None:
    worker = Watched(SPEC)
    runner, slots_SP = attached(worker)
    reply = runner.compute(request(0))
    assert [asked[0] for asked in worker.asked] == ["read", "compute"] * 2
    assert reply.nodes == (Sums(2, 2.0),)
    assert slots_SP[0].tolist() == [2.0] * 5
    assert reply.answers(request(0))


def test_prefetched_block_lies_in_the_other_buffer_and_is_not_read_again() -> None:
    worker = Watched(SPEC)
    runner, _ = attached(worker)
    runner.compute(request(0))
    runner.prefetch(request(0))
    assert worker.asked[-1] == ("read", 1, 1, 1)
    worker.asked.clear()
    runner.compute(ComputeRequest(0, RequestKind.GRADIENT, 1, 1, 2, 0, 0))
    assert worker.asked == [("compute", 1, 1, True)]
    runner.compute(request(2))
    assert {asked[3] for asked in worker.asked if asked[0] == "read"} == {1}


@pytest.mark.parametrize("kind", [RequestKind.LOSS, RequestKind.EVALUATE])
def test_losses_are_computed_without_a_gradient(kind: RequestKind) -> None:
    worker = Watched(SPEC)
    runner, slots_SP = attached(worker)
    assert runner.compute(request(0, kind)).nodes == (Sums(2, 2.0),)
    assert not any(asked[3] for asked in worker.asked if asked[0] == "compute")
    assert not slots_SP.any()


def test_rows_that_a_worker_does_not_ask_for_are_not_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Watched(SPEC)
    worker.is_drawing = False
    runner, _ = attached(worker)
    monkeypatch.setattr(runner, "_row_order", None)
    assert runner.compute(request(0)).nodes == (Sums(2, 2.0),)


def test_observer_hears_of_the_phases_around_the_blocks() -> None:
    worker = Watched(SPEC)
    runner, _ = attached(worker, on_phase=lambda phase, step: worker.asked.append((phase, step)))
    for kind in RequestKind:
        runner.compute(request(7, kind))
    heard = [asked for asked in worker.asked if asked[0] not in ("read", "compute")]
    training = [("before_read", 7), ("after_compute", 7)]
    evaluation = [("during_evaluation", 7), ("after_evaluation", 7)]
    assert heard == [*training, *evaluation, *training]
    assert worker.asked[0] == training[0]


def test_worker_without_a_view_shows_nothing_and_says_how_it_could() -> None:
    runner, _ = attached(Watched(SPEC))
    with pytest.raises(ConfigError, match="Watched shows nothing of a step; give it a method view"):
        runner.view(0)


def test_worker_is_made_from_its_class_or_its_name() -> None:
    name = f"{__name__}:Watched"
    for worker in (Watched, name):
        assert make_runner(worker, SPEC).describe(3).data_digest == "its data"
    with pytest.raises(ConfigError, match=f'"{__name__}:Nothing" cannot be found'):
        make_runner(f"{__name__}:Nothing", SPEC)


class Undigested:
    """Does not say on which data it computes."""

    read, compute, prefetch = Watched.read, Watched.compute, Watched.prefetch

    def __init__(self, _: WorkerSpec) -> None:
        self.asked: list[tuple[Any, ...]] = []


class Unmade(Watched):
    """Cannot be constructed."""

    def __init__(self, _: WorkerSpec) -> None:
        raise KeyError("a setting")


class Abstract(Watched, ABC):
    """Lacks a method of its own."""

    @abstractmethod
    def weigh(self) -> None: ...


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (Undigested, r"makes a Undigested without data_digest; must be a class with read"),
        (
            Unmade,
            r"raises KeyError: 'a setting' \(.*test_runner.py, line \d+, in __init__\)",
        ),
        (Abstract, r"raises TypeError: Can't instantiate abstract class Abstract.*\(mend it"),
    ],
)
def test_class_that_makes_no_worker_is_refused_by_its_name(worker: Any, said: str) -> None:
    for given in (worker, f"{__name__}:{worker.__name__}"):
        with pytest.raises(ConfigError, match=f'parallel.worker is ".*{worker.__name__}".*{said}'):
            make_runner(given, SPEC)


def test_data_and_process_stand_in_what_a_runner_says_of_itself() -> None:
    one, other = Runner(FakeBlocks(SPEC), SPEC), Runner(Watched(SPEC), replace(SPEC, seed=1))
    assert one.describe(1).probe == other.describe(1).probe != ""
    assert one.describe(1).data_digest != other.describe(1).data_digest


def test_error_of_the_models_own_code_gets_its_step() -> None:
    class Failing(Watched):
        def compute(self, batch: Any, weights_P: Array, gradient_P: Array | None) -> Sums:
            del batch, weights_P, gradient_P
            raise OwnCodeError("m:make", "ValueError: no", "its frames") from ValueError("no")

    runner = Runner(Failing(SPEC), SPEC)
    runner.attach(np.zeros(2, np.float32), np.zeros((most_nodes(NUM_BLOCKS), 2), np.float32))
    with pytest.raises(OwnCodeError, match="ValueError: no at step 1") as found:
        runner.compute(ComputeRequest(0, RequestKind.GRADIENT, 1, 0, 1, 0, 0))
    assert (found.value.step, found.value.frames) == (1, "its frames")
    assert isinstance(found.value.__cause__, ValueError)
