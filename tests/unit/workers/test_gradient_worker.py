from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.data.dataset import DataSet
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.sampler import Block
from distsgd.data.tables import arrays_source
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, Sums
from distsgd.parallel.numerics import profile
from distsgd.parallel.runner import Runner, make_runner
from distsgd.parallel.transport.interface import BufferLayout
from distsgd.parallel.tree import most_nodes
from distsgd.parallel.worker import WorkerSpec
from distsgd_workers.gradient_worker import GradientWorker
from tests.fakes import small_blocks
from tests.oracles import tree_over

Labels = Literal["class", "one_hot", "number"]
NUM_ROWS, NUM_FEATURES, NUM_CLASSES = 230, 7, 3
BLOCK_ROWS = 5
LABELS: tuple[Labels, ...] = ("class", "one_hot", "number")


@dataclass(frozen=True)
class Setting:
    """A data set, and a network on it."""

    spec: WorkerSpec
    data: DataSet
    weights_P: Array

    @property
    def layout(self) -> BufferLayout:
        slots = most_nodes(self.spec.sampler.most_leaves)
        return BufferLayout(self.spec.model.num_parameters, slots, self.spec.dtype)

    def worker(self) -> tuple[Runner, Array]:
        """A new worker, and its slots."""
        layout, worker = self.layout, make_runner(GradientWorker, self.spec)
        slots_SP = layout.slots(bytearray(layout.slots_bytes))
        worker.attach(self.weights_P, slots_SP)
        return worker, slots_SP

    def blocks(self, kind: RequestKind, step: int) -> tuple[Block, ...]:
        sampler = self.spec.sampler
        if kind is not RequestKind.EVALUATE:
            return sampler.partition(step).blocks
        return sampler.blocking.evaluation(self.data.test.num_rows).blocks

    def rows_of(self, kind: RequestKind, step: int, block: Block) -> tuple[Array, Array, Array]:
        """Rows of a block: features, target, squared norms."""
        spec, count = self.spec, block.last - block.first
        rows_N = np.arange(block.first, block.last)
        if kind is not RequestKind.EVALUATE:
            spec.sampler.row_order().rows_inplace(step, block.first, block.last, rows_N)
            rows_N.sort()
        x_NI = np.zeros((count, NUM_FEATURES), spec.dtype)
        is_class = spec.model.target_kind == "class"
        shape = (count,) if is_class else (count, spec.model.num_outputs)
        target = np.zeros(shape, np.int64 if is_class else spec.dtype)
        norms_N = np.zeros(count, spec.dtype)
        rows = self.data.test if kind is RequestKind.EVALUATE else self.data.train
        rows.gather_inplace(rows_N, x_NI=x_NI, target=target, squared_norms_N=norms_N)
        return x_NI, target, norms_N

    def of_block(self, kind: RequestKind, step: int, block: Block) -> tuple[Array, Sums]:
        """Gradient and sums of one block, by a program of its own."""
        spec = self.spec
        x_NI, target, norms_N = self.rows_of(kind, step, block)
        gradient_P = np.zeros_like(self.weights_P)
        program = spec.model.program(len(x_NI), spec.dtype, per_sample=spec.per_sample)
        bound = program.bind(
            x_NI,
            target,
            weights=self.weights_P,
            gradients=gradient_P,
            x_squared_norms=norms_N if spec.per_sample else None,
        )
        bound.forward()
        loss_sum = float(bound.losses_N.astype(np.float64).sum())
        if kind is RequestKind.LOSS:
            return gradient_P, Sums(len(x_NI), loss_sum, 0, 0.0, 0.0)
        if kind is RequestKind.EVALUATE:
            classes_N = target if target.ndim == 1 else target.argmax(axis=1)
            is_right_N = bound.outputs_NO.argmax(axis=1) == classes_N
            correct = int(is_right_N.sum()) if spec.has_classes else 0
            return gradient_P, Sums(len(x_NI), loss_sum, correct, 0.0, 0.0)
        bound.backward()
        if bound.squared_norms_N is None:
            return gradient_P, Sums(len(x_NI), loss_sum, 0, 0.0, 0.0)
        norm_sum = float(bound.squared_norms_N.astype(np.float64).sum())
        norm_max = float(bound.squared_norms_N.max())
        return gradient_P, Sums(len(x_NI), loss_sum, 0, norm_sum, norm_max)

    def expected(self, kind: RequestKind, step: int) -> tuple[Array, Sums]:
        """The sum over all blocks, in the tree."""
        return tree_over(
            self.blocks(kind, step),
            lambda block: self.of_block(kind, step, block),
            lambda left, right: (left[0] + right[0], left[1].joined(right[1])),
        )

    def request(
        self, kind: RequestKind, step: int, first: int = 0, last: int | None = None
    ) -> ComputeRequest:
        num_blocks = len(self.blocks(kind, step))
        last = num_blocks if last is None else last
        num_next = 0 if kind is RequestKind.EVALUATE else len(self.blocks(kind, step + 1))
        return ComputeRequest(1, kind, step, first, last, min(first, num_next), num_next)


Settings = Callable[..., Setting]


@pytest.fixture(scope="module")
def make_setting(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Makes settings; data sets are prepared once."""
    root = tmp_path_factory.mktemp("prepared")

    def data_of(labels: Labels) -> Path:
        path = root / ("numbers" if labels == "number" else "classes")
        if not path.exists():
            x_NI = (
                uniform(3, Purpose.PROBE, count=NUM_ROWS * NUM_FEATURES).reshape(NUM_ROWS, -1) - 0.5
            )
            label: tuple[str, ...] = ("label_0", "label_1") if labels == "number" else ("label",)
            y = x_NI[:, :2] if labels == "number" else x_NI[:, :NUM_CLASSES].argmax(axis=1)
            options = PrepareOptions(label, test_fraction=0.2, shards=3)
            prepare(arrays_source(x_NI, y), path, options=options)
        return path

    def make(
        labels: Labels = "class",
        *,
        per_sample: bool = True,
        batch_rows: int = 64,
        hidden: tuple[str | None, ...] = ("relu",),
    ) -> Setting:
        path = data_of(labels)
        data = DataSet.open(path)
        loss = "softmax_cross_entropy" if labels == "class" else "quadratic"
        outputs = 2 if labels == "number" else NUM_CLASSES
        model = Network(
            [*(Dense(6, name) for name in hidden), Dense(outputs)], loss, (NUM_FEATURES,)
        )
        sampler = small_blocks(
            data.train.num_rows, batch_rows, lanes=4, lane_rows=8, block_rows=BLOCK_ROWS
        )
        has_classes, test_rows = labels != "number", data.test.num_rows
        spec = WorkerSpec(path, model, sampler, "float32", 7, per_sample, has_classes, test_rows)
        weights_P = model.initialise("glorot", 0, "float32")
        weights_P.flags.writeable = False
        return Setting(spec, data, weights_P)

    return make


def same(reply: ComputeReply, slots_SP: Array, expected: tuple[Array, Sums]) -> bool:
    """One node, with the expected bits; no gradient is held against those of an evaluation."""
    is_same_gradient = (
        reply.kind is not RequestKind.GRADIENT or slots_SP[0].tobytes() == expected[0].tobytes()
    )
    return reply.nodes == (expected[1],) and is_same_gradient


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("batch_rows", [1, 2, 64, 10_000])
def test_order_of_all_blocks_equals_a_loop_over_them(
    make_setting: Settings, labels: Labels, batch_rows: int, *, per_sample: bool
) -> None:
    setting = make_setting(labels, per_sample=per_sample, batch_rows=batch_rows)
    worker, slots_SP = setting.worker()
    last = setting.spec.sampler.steps_per_epoch - 1
    for step in (0, 1, last, last + 1):
        reply = worker.compute(setting.request(RequestKind.GRADIENT, step))
        assert same(reply, slots_SP, setting.expected(RequestKind.GRADIENT, step))


@pytest.mark.parametrize("labels", LABELS)
def test_evaluation_counts_correct_answers_of_classes(
    make_setting: Settings, labels: Labels
) -> None:
    setting = make_setting(labels)
    worker, slots_SP = setting.worker()
    reply = worker.compute(setting.request(RequestKind.EVALUATE, 5))
    assert same(reply, slots_SP, setting.expected(RequestKind.EVALUATE, 5))
    (sums,) = reply.nodes
    x_NI, target, _ = setting.rows_of(
        RequestKind.EVALUATE, 0, Block(0, 0, setting.data.test.num_rows)
    )
    assert sums.num_samples == len(x_NI) > 20
    if labels != "number":
        classes_N = target if labels == "class" else target.argmax(axis=1)
        outputs_NO = setting.spec.model.predict(setting.weights_P, x_NI)
        assert 0 < sums.correct == int((outputs_NO.argmax(axis=1) == classes_N).sum()) < len(x_NI)
    else:
        assert sums.correct == 0


def test_evaluation_leaves_the_slots_alone(make_setting: Settings) -> None:
    setting = make_setting()
    worker, slots_SP = setting.worker()
    slots_SP[:] = 3
    worker.compute(setting.request(RequestKind.EVALUATE, 0))
    assert set(slots_SP.flat) == {3}


def test_mean_gradient_is_that_of_a_loop_over_single_samples(make_setting: Settings) -> None:
    setting = make_setting(per_sample=True)
    worker, slots_SP = setting.worker()
    (sums,) = worker.compute(setting.request(RequestKind.GRADIENT, 0)).nodes
    gradients = []
    for block in setting.blocks(RequestKind.GRADIENT, 0):
        x_NI, target, _ = setting.rows_of(RequestKind.GRADIENT, 0, block)
        for i in range(len(x_NI)):
            gradient_P = np.zeros(setting.layout.num_parameters)
            bound = setting.spec.model.program(1, "float64", per_sample=False).bind(
                x_NI[i : i + 1].astype(np.float64),
                target[i : i + 1],
                weights=setting.weights_P.astype(np.float64),
                gradients=gradient_P,
            )
            bound.forward()
            bound.backward()
            gradients.append(gradient_P)
    gradients_NP = np.array(gradients)
    assert sums.num_samples == len(gradients_NP) == 64
    # Sums of 64 float32 numbers.
    scale = float(np.abs(gradients_NP).sum(axis=0).max())
    assert np.abs(slots_SP[0] - gradients_NP.sum(axis=0)).max() <= 64 * 2.0**-23 * scale
    squares_N = np.square(gradients_NP).sum(axis=1)
    assert sums.squared_norm_sum == pytest.approx(float(squares_N.sum()), rel=64 * 2.0**-23)
    assert sums.squared_norm_max == pytest.approx(float(squares_N.max()), rel=64 * 2.0**-23)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_worker_can_be_asked_for_anything_in_any_order(
    make_setting: Settings, data: st.DataObject
) -> None:
    setting = make_setting(data.draw(st.sampled_from(LABELS)), hidden=())
    used, used_slots_SP = setting.worker()
    for _ in range(6):
        kind = data.draw(st.sampled_from(RequestKind))
        step = data.draw(st.integers(0, 2 * setting.spec.sampler.steps_per_epoch))
        first = data.draw(st.integers(0, len(setting.blocks(kind, step)) - 1))
        last = data.draw(st.integers(first + 1, len(setting.blocks(kind, step))))
        request = setting.request(kind, step, first, last)
        fresh, slots_SP = setting.worker()
        reply, expected = used.compute(request), fresh.compute(request)
        assert reply[:5] == request[:5]
        assert reply.nodes == expected.nodes
        num_nodes = len(reply.nodes) if kind is RequestKind.GRADIENT else 0
        assert used_slots_SP[:num_nodes].tobytes() == slots_SP[:num_nodes].tobytes()
        if data.draw(st.booleans()):
            used.prefetch(request)


@pytest.mark.parametrize("cuts", [(), (1,), (5,), (3, 4, 9)])
def test_prefetch_changes_no_bit(make_setting: Settings, cuts: tuple[int, ...]) -> None:
    setting = make_setting()
    reading, reading_slots_SP = setting.worker()
    plain, slots_SP = setting.worker()
    # Over the end of an epoch, where the request of the rows changes.
    for step in range(2 * setting.spec.sampler.steps_per_epoch + 1):
        num_blocks = len(setting.blocks(RequestKind.GRADIENT, step))
        edges = [0, *(cut for cut in cuts if cut < num_blocks), num_blocks]
        for first, last in pairwise(edges):
            request = setting.request(RequestKind.GRADIENT, step, first, last)
            reply, expected = reading.compute(request), plain.compute(request)
            assert reply.nodes == expected.nodes
            num_nodes = len(reply.nodes)
            assert reading_slots_SP[:num_nodes].tobytes() == slots_SP[:num_nodes].tobytes()
            reading.prefetch(request)


def test_prefetched_block_is_used_and_only_for_its_order(make_setting: Settings) -> None:
    setting = make_setting()
    worker, slots_SP = setting.worker()
    worker.prefetch(setting.request(RequestKind.GRADIENT, 0))
    assert worker._ahead is not None
    assert worker._ahead[0][:3] == (False, 1, setting.blocks(RequestKind.GRADIENT, 1)[0])
    worker.compute(setting.request(RequestKind.EVALUATE, 1))
    assert worker._ahead is not None
    reply = worker.compute(setting.request(RequestKind.GRADIENT, 1))
    assert worker._ahead is None
    assert same(reply, slots_SP, setting.expected(RequestKind.GRADIENT, 1))
    worker.prefetch(setting.request(RequestKind.GRADIENT, 1)._replace(next_first=0, next_last=0))
    assert worker._ahead is None


def test_prefetched_block_is_not_used_in_another_epoch(make_setting: Settings) -> None:
    setting = make_setting()
    worker, slots_SP = setting.worker()
    later = 1 + setting.spec.sampler.steps_per_epoch
    assert setting.blocks(RequestKind.GRADIENT, 1) == setting.blocks(RequestKind.GRADIENT, later)
    worker.prefetch(setting.request(RequestKind.GRADIENT, 0))
    reply = worker.compute(setting.request(RequestKind.GRADIENT, later))
    assert same(reply, slots_SP, setting.expected(RequestKind.GRADIENT, later))


def test_worker_attached_anew_reads_and_writes_there(make_setting: Settings) -> None:
    setting = make_setting()
    worker, old_SP = setting.worker()
    worker.compute(setting.request(RequestKind.GRADIENT, 0))
    before = old_SP.copy()
    moved = replace(setting, weights_P=setting.weights_P * np.float32(2))
    new_SP = np.zeros_like(old_SP)
    worker.attach(moved.weights_P, new_SP)
    reply = worker.compute(moved.request(RequestKind.GRADIENT, 0))
    assert same(reply, new_SP, moved.expected(RequestKind.GRADIENT, 0))
    assert old_SP.tobytes() == before.tobytes()


def test_weights_are_read_as_they_are_at_the_time(make_setting: Settings) -> None:
    setting = make_setting()
    weights_P = setting.weights_P.copy()
    live = replace(setting, weights_P=weights_P)
    worker, slots_SP = live.worker()
    for factor in (1, 2, 3):
        weights_P *= np.float32(factor)
        reply = worker.compute(live.request(RequestKind.GRADIENT, 0))
        assert same(reply, slots_SP, live.expected(RequestKind.GRADIENT, 0))


def test_worker_describes_its_process_its_bits_and_its_data(make_setting: Settings) -> None:
    setting = make_setting()
    found = setting.worker()[0].describe(4)
    assert (found.worker, found.version, found.pid) == (4, __version__, os.getpid())
    assert found.probe == profile("float32").bits
    assert found.data_digest == setting.data.manifest.digest
