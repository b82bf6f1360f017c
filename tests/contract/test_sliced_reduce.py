"""The sum of a step is the same bits, whoever sums which range of the parameters."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.data.sampler import Block
from distsgd.optim.clip import CHUNK_LENGTH, squared_norm
from distsgd.parallel.messages import PartialRef, ReduceReply, ReduceRequest, RequestKind, Sums
from distsgd.parallel.pool import members, reduction
from distsgd.parallel.pool.pool import PoolSettings, Work, WorkerPool
from distsgd.parallel.pool.reduction import Root
from distsgd.parallel.transport import connect, shared_memory
from distsgd.parallel.transport.interface import BufferLayout, Event, Reduced
from distsgd.parallel.transport.shared_memory import SharedMemoryTransport
from distsgd.parallel.transport.shared_memory_channel import SharedMemoryChannel
from distsgd.parallel.tree import GradientSum, most_nodes
from tests.fakes import FakeWorker, block_gradient, serve_fake, small_blocks
from tests.oracles import tree_over

SAMPLER = small_blocks(100, 64, lanes=4, lane_rows=8, block_rows=3)
LAYOUT = BufferLayout(3 * CHUNK_LENGTH + 5, most_nodes(SAMPLER.most_leaves), "float32")
PATIENCE_S = 30.0
SECRET = bytes(range(32))

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="needs memfd (Linux)")


class Hall:
    """A pool over shared memory, and workers that come and go."""

    def __init__(
        self, stack: ExitStack, num_processes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reduction, "WORTH_IT", 1)
        monkeypatch.setattr(members, "PATIENCE_FLOOR_S", PATIENCE_S)
        monkeypatch.setattr(reduction, "num_cores", lambda: num_processes)
        self.transport = SharedMemoryTransport(LAYOUT, secret=SECRET, incarnation=1)
        self.threads = stack.enter_context(ThreadPoolExecutor(8))
        stack.callback(self.transport.close)
        self.said: list[str] = []
        self.pool = WorkerPool(
            LAYOUT,
            FakeWorker(SAMPLER),
            transport=self.transport,
            settings=PoolSettings("all", PATIENCE_S, incarnation=1),
            say=self.said.append,
        )
        self.pool.weights[:] = np.linspace(-1.0, 1.0, LAYOUT.num_parameters)

    def serve(self, count: int) -> None:
        for worker in range(count):
            self.threads.submit(serve_fake, self.transport.address, worker, SAMPLER)
        self.pool.wait_for_members(count, PATIENCE_S)

    def gather(self, step: int) -> Root:
        return self.pool.gather(Work(RequestKind.GRADIENT, step, SAMPLER.partition(step)))

    def is_right(self, root: Root, step: int) -> bool:
        def leaf(block: Block) -> tuple[Array, Sums]:
            return block_gradient(self.pool.weights, step, block)

        expected, sums = tree_over(
            SAMPLER.partition(step).blocks, leaf, lambda a, b: (a[0] + b[0], a[1].joined(b[1]))
        )
        same = root.gradient_sum.tobytes() == expected.tobytes() and root.sums == sums
        return same and root.squared_norm == squared_norm(expected)

    def has_summed(self, worker: int) -> bool:
        return bool(self.transport.reduced_slice(worker).any())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("num_workers", [2, 3, 4])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
def test_shared_sum_is_that_of_the_tree(
    num_workers: int, num_processes: int, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(stack, num_processes, monkeypatch)
    hall.serve(num_workers)
    for step in range(3):
        assert hall.is_right(hall.gather(step), step)
    summed = [hall.has_summed(worker) for worker in range(num_workers)]
    # Four chunks, the last of them the server's.
    assert sum(summed) == min(num_workers, num_processes - 1, 3)


def test_worker_that_has_died_or_come_anew_is_summed_without(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(stack, 4, monkeypatch)
    hall.serve(3)
    assert hall.is_right(hall.gather(0), 0)
    hall.transport._drop(hall.transport._peers[1], "killed")
    assert hall.is_right(hall.gather(1), 1)
    hall.threads.submit(serve_fake, hall.transport.address, 1, SAMPLER)
    hall.pool.wait_for_members(3, PATIENCE_S)
    assert hall.is_right(hall.gather(2), 2)
    assert hall.has_summed(1)


def test_range_of_a_worker_that_does_not_answer_is_summed_by_the_server(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(stack, 3, monkeypatch)
    hall.serve(2)
    send = hall.transport.send_reduce

    def lose_the_first(worker: int, request: ReduceRequest) -> None:
        if worker:
            send(worker, request)

    monkeypatch.setattr(hall.transport, "send_reduce", lose_the_first)
    monkeypatch.setattr(members, "PATIENCE_FLOOR_S", 1.0)
    assert hall.is_right(hall.gather(0), 0)
    assert any("worker 0 is late in summing at step 0" in line for line in hall.said)
    assert not hall.has_summed(0)


def test_worker_that_dies_between_its_reply_and_the_sum_costs_nothing_else(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(stack, 4, monkeypatch)
    hall.serve(3)
    send = hall.transport.send_reduce

    def die_first(worker: int, request: ReduceRequest) -> None:
        if worker == 0 and request.step == 0:
            hall.transport._drop(hall.transport._peers[0], "killed")
        else:
            send(worker, request)

    monkeypatch.setattr(hall.transport, "send_reduce", die_first)
    assert hall.is_right(hall.gather(0), 0)
    assert hall.is_right(hall.gather(1), 1)
    assert sorted(hall.pool.members) == [1, 2]


def test_worker_that_sums_what_is_no_number_is_ended(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(stack, 3, monkeypatch)
    hall.serve(2)
    ended: list[int] = []
    wait = hall.transport.wait

    def spoil(timeout_s: float, *, spin_s: float = 0.0) -> list[Event]:
        return [
            event._replace(reply=event.reply._replace(squared_norms=(float("nan"),)))
            if isinstance(event, Reduced) and event.worker == 1
            else event
            for event in wait(timeout_s, spin_s=spin_s)
        ]

    monkeypatch.setattr(hall.transport, "wait", spoil)
    monkeypatch.setattr(hall.transport, "kill", ended.append)
    assert hall.is_right(hall.gather(0), 0)
    assert ended == [1]
    assert any("worker 1, step 0: sent an invalid sum of a range" in line for line in hall.said)


def test_who_is_to_sum_reads_what_others_have_and_cannot_write_it(stack: ExitStack) -> None:
    transport = SharedMemoryTransport(LAYOUT, secret=SECRET, incarnation=1)
    stack.callback(transport.close)
    pool = stack.enter_context(ThreadPoolExecutor(2))
    futures = [
        pool.submit(connect, transport.address, FakeWorker(SAMPLER).describe(worker))
        for worker in range(2)
    ]
    deadline = monotonic() + PATIENCE_S
    while len(transport._peers) < 2 and monotonic() < deadline:
        transport.wait(0.1)
    first, second = (future.result(PATIENCE_S) for future in futures)
    stack.callback(first.close)
    stack.callback(second.close)
    first.slots[0], second.slots[1] = 2.0, 3.0
    transport.send_reduce(1, ReduceRequest(1, 0, 1, 3, (PartialRef(0, 0, 0), PartialRef(1, 1, 1))))
    assert isinstance(second, SharedMemoryChannel)
    request = second.receive(PATIENCE_S)
    assert isinstance(request, ReduceRequest)
    partials = second.partials(request)
    second.reply(GradientSum("float32").reduce(request, partials, out=second.reduced_slice))
    (event,) = transport.wait(PATIENCE_S)
    assert event == (1, ReduceReply(1, 0, 1, 3, (25.0 * CHUNK_LENGTH,) * 2))
    found = transport.reduced_slice(1)
    assert not found[:CHUNK_LENGTH].any()
    assert (found[CHUNK_LENGTH : 3 * CHUNK_LENGTH] == 5.0).all()
    assert not second._others[0].flags.writeable
    with pytest.raises(PermissionError):
        mmap.mmap(transport._peers[0].slots_fd, LAYOUT.slots_bytes)
    transport._drop(transport._peers[0], "gone")
    assert second.receive(0.2) is None
    assert second._others == {}


@pytest.mark.parametrize(
    "words", [b"", b"\0" * 5, ReduceReply(1, 0, 0, 3, (1.0, 2.0, 3.0)).pack()[:-1]]
)
def test_words_that_are_no_reply_of_a_sum_are_refused(words: bytes) -> None:
    with pytest.raises(ValueError, match="are no reply"):
        ReduceReply.unpack(words)


def test_words_of_a_sum_come_back_as_they_were() -> None:
    request = ReduceRequest(3, 1 << 40, 5, 9, (PartialRef(0, 1, 0), PartialRef(7, 0, 2)))
    assert ReduceRequest.unpack(request.pack()) == request
    reply = ReduceReply(3, 1 << 40, 5, 7, (0.1, 1e300))
    assert ReduceReply.unpack(reply.pack()) == reply
    assert reply._replace(last=9).answers(request)
    assert not reply.answers(request)
