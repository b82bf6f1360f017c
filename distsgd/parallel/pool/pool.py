"""The pool: the server's hands.

Second line of the step loop. It sends a step's blocks to workers and gathers their partials. A
worker that is lost or late costs only its blocks: the server computes them itself, and the same
bits come out. What arrives late, from an earlier step or incarnation, is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from distsgd.base.arrays import Array
from distsgd.data.blocks import Partition
from distsgd.errors import WaitTimeoutError, WorkerError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.autotuner import SERVER, Assignment, Planner
from distsgd.parallel.pool.crash_loop import CrashLoopGuard
from distsgd.parallel.pool.membership import Membership
from distsgd.parallel.pool.phases import Phases
from distsgd.parallel.pool.reduction import Part, Reduction, Root
from distsgd.parallel.pool.sliced_reduce import SlicedReduce
from distsgd.parallel.runner import Runner
from distsgd.parallel.transport.buffers import BufferLayout
from distsgd.parallel.transport.in_process import InProcessTransport
from distsgd.parallel.transport.interface import (
    SPIN_S,
    Event,
    Lost,
    Replied,
    SharingTransport,
    Transport,
)
from distsgd.parallel.worker import Seen

LOOK_S = 0.1  # How often a server that computes alone looks who has come or gone.
NO_ASSIGNMENT = Assignment(SERVER, 0, 0)


@dataclass(frozen=True, slots=True)
class Work:
    """Blocks to be computed: those of training step `step`, or, for an evaluation, of test rows."""

    kind: RequestKind
    step: int
    partition: Partition
    num_next: int = 0  # Blocks of the step that will follow, for reading ahead.

    def num_rows(self, order: ComputeRequest) -> int:
        """Rows of the blocks of `order`."""
        blocks = self.partition.blocks
        return blocks[order.last - 1].last - blocks[order.first].first

    @property
    def num_blocks(self) -> int:
        """All blocks of the step."""
        return len(self.partition.blocks)


class WorkerPool:
    """All that computes for one server: itself and, if there is an transport, connected workers."""

    def __init__(
        self,
        layout: BufferLayout,
        own: Runner,
        *,
        transport: Transport | None,
        planner: Planner,
        incarnation: int,
        step_timeout_s: float,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.weights = (
            transport.weights if transport else np.zeros(layout.num_parameters, layout.dtype)
        )
        self.phases = Phases()
        self.is_settled = False  # Is the plan of such steps as the last one found?
        self.computed_by: tuple[int, ...] = ()  # Who was asked at the last step; -1: the server.
        self._own = InProcessTransport(layout, own, weights=self.weights, worker_id=SERVER)
        self._viewer = own
        self._transport = transport
        self._planner = planner
        self._membership = Membership(own.describe(SERVER), planner, say=say)
        shared = (
            SlicedReduce(transport, self._membership, incarnation=incarnation, clock=clock)
            if isinstance(transport, SharingTransport)
            else None
        )
        self._reduction = Reduction(layout, shared)
        self._incarnation = incarnation
        self._step_timeout_s = step_timeout_s
        self._clock = clock
        self._looked_at_s = clock()
        self._seconds: dict[int, float] = {}  # Of each that computed in the last step.
        self._awake_s = 0.0
        self._say = say
        self.crash_loop = CrashLoopGuard()  # Blocks on which processes died.

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that are connected."""
        return self._membership.members

    def expect(self, num_workers: int) -> None:
        """There will be `num_workers` workers, and no more; callable from another thread."""
        self._membership.most_expected = num_workers

    def wait_for_members(self, count: int, timeout_s: float) -> None:
        """Block until `count` workers are connected.

        Raises:
            WaitTimeoutError: They are not, after `timeout_s` seconds; says who is missing.
        """
        deadline = self._clock() + timeout_s
        while len(self.members) < min(count, self._membership.most_expected):
            assert self._transport is not None
            left_s = deadline - self._clock()
            if left_s <= 0:
                missing = sorted(set(range(count)) - set(self.members))
                raise WaitTimeoutError(f"workers {missing} to connect", timeout_s)
            for event in self._transport.wait(min(left_s, 1.0)):
                self._membership.notice(event)

    def gather(self, work: Work) -> Root:
        """Have all blocks of `work` computed, and sum them in the tree. Blocks.

        It ends whatever the workers do: what they do not give in time is computed here.
        """
        started = self._clock()
        self._look_around(started)
        self._membership.update_plan(work.step)
        orders = self._orders(work)
        self._send(orders)
        parts = self._collect(work, orders, started)
        collected = self._clock()
        root = self._sum(work, parts)
        ended = self._clock()
        reports = [part.reply for part in parts]
        self.phases.add(reports, gather_s=collected - started, reduce_s=ended - collected)
        if work.kind is not RequestKind.EVALUATE:
            self.computed_by = tuple(orders)
            self.is_settled = self._planner.is_settled(work.num_blocks)
            self._planner.observe(work.num_blocks, ended - started)
            slow = self._membership.stragglers.slow_one(self._seconds) if self._seconds else None
            if slow is not None and slow != SERVER:
                self._membership.waited_for(slow, work.step)
        return root

    def view(self, step: int) -> Seen:
        """What the server's own worker sees of training step `step`, by the weights as they are."""
        return self._viewer.view(step)

    def close(self) -> None:
        """Let the workers go."""
        if self._transport:
            self._transport.close()

    def process_of(self, worker: int) -> int | None:
        """The process of `worker` on this node; None where the kernel does not vouch for it."""
        pid_of = getattr(self._transport, "pid", None)
        return pid_of(worker) or None if pid_of and worker in self.members else None

    def _sum(self, work: Work, parts: list[Part]) -> Root:
        """The root over `parts`; one that cannot be is looked into: is it a worker, or the run?"""
        edges = work.partition.separators
        try:
            root = self._reduction.sum(parts, edges)
            if root.is_finite:
                return root
        except WorkerError:
            pass  # Found again below, with a name.
        for at, part in enumerate(parts):
            if part.worker != SERVER:
                parts[at] = self._compare(work, part, parts)
        return self._reduction.sum(parts, edges)

    def _compare(self, work: Work, part: Part, parts: Sequence[Part]) -> Part:
        """The same blocks computed here; where only the worker's result cannot be, it is ended."""
        report = part.reply
        order = ComputeRequest(
            self._incarnation, work.kind, work.step, report.first, report.last, 0, 0
        )
        again = self._redo(order, parts)
        again.keep()
        if again.is_finite and not (part.is_finite and part.has_shape_of(again)):
            reason = (
                f"gave something that cannot be a partial for {self.crash_loop.name(order)}; "
                "computed here it can, so the step goes on and that worker is ended"
            )
            self._say(str(WorkerError(part.worker, work.step, reason)))
            assert self._transport is not None
            self._transport.kill(part.worker)
        return again

    def _orders(self, work: Work) -> dict[int, ComputeRequest]:
        is_seldom = work.kind is RequestKind.EVALUATE
        assignments = (
            self._planner.assignments_unmeasured if is_seldom else self._planner.assignments
        )
        expected: dict[int, Assignment] = {}
        if work.num_next:
            expected = {assignment.worker: assignment for assignment in assignments(work.num_next)}
        spin = not is_seldom and self._planner.spin(work.num_blocks)
        self._awake_s = SPIN_S if spin else 0.0
        return {
            worker: ComputeRequest(
                self._incarnation,
                work.kind,
                work.step,
                first,
                last,
                *expected.get(worker, NO_ASSIGNMENT)[1:],
                spin=self._awake_s > 0,
            )
            for worker, first, last in assignments(work.num_blocks)
        }

    def _send(self, orders: dict[int, ComputeRequest]) -> None:
        """The workers first: the server computes its own assignment while they compute theirs."""
        for worker, order in orders.items():
            if worker != SERVER:
                assert self._transport is not None
                self._transport.send(worker, order)
        if SERVER in orders:
            self._own.send(SERVER, orders[SERVER])

    def _collect(self, work: Work, orders: dict[int, ComputeRequest], started: float) -> list[Part]:
        """A part for every order, in block order, whoever computed it in the end."""
        parts: list[Part] = []
        self._seconds.clear()
        waiting = dict(orders)
        patience = {at: self._patience_s(work, it) for at, it in orders.items() if at != SERVER}
        while waiting:
            events = self._events(waiting, patience, started)
            for event in events:
                order = waiting.get(event.worker)
                if order is None:
                    continue
                if isinstance(event, Replied) and event.reply.answers(order):
                    del waiting[event.worker]
                    parts.append(Part(event.worker, event.reply, self._partials(event.worker)))
                    self._took(event, work, order, started)
                elif isinstance(event, Lost):
                    del waiting[event.worker]
                    self.crash_loop.died(order)
                    parts.append(self._redo(order, parts))
                    self.crash_loop.cleared()
            if not events:
                self._back_up(waiting, parts, patience, started)
        parts.sort(key=lambda part: part.reply.first)
        return parts

    def _took(self, event: Replied, work: Work, order: ComputeRequest, started: float) -> None:
        """Remember how long rows take, to know who is late, and who is slow."""
        if event.worker == SERVER:
            seconds = (event.reply.read_us + event.reply.compute_us) * 1e-6
        else:
            seconds = self._clock() - started
            self._membership.stragglers.took(order.kind, work.num_rows(order), seconds)
        self._seconds[event.worker] = seconds

    def _patience_s(self, work: Work, order: ComputeRequest) -> float:
        """How long this order may take before somebody else computes it."""
        allowed_s = self._membership.stragglers.allowed_s(order.kind, work.num_rows(order))
        return self._step_timeout_s if allowed_s is None else min(allowed_s, self._step_timeout_s)

    def _back_up(
        self,
        waiting: dict[int, ComputeRequest],
        parts: list[Part],
        patience: dict[int, float],
        started: float,
    ) -> None:
        """Compute the blocks of those who are late: nothing came for as long as they had."""
        now = self._clock()
        for worker, order in list(waiting.items()):
            if now - started >= patience[worker]:
                del waiting[worker]
                self._membership.backup_took_over(worker, now_s=now, step=order.step)
                parts.append(self._redo(order, parts))

    def _events(
        self, waiting: dict[int, ComputeRequest], patience: dict[int, float], started: float
    ) -> list[Event]:
        if SERVER in waiting:
            return self._own.wait(0)
        assert self._transport is not None
        until = started + min(patience[worker] for worker in waiting)
        events = self._transport.wait(max(0.0, until - self._clock()), spin_s=self._awake_s)
        for event in events:
            self._membership.notice(event)
        return events

    def _look_around(self, now_s: float) -> None:
        """Greet who waits at the door: a server that computes alone waits for nobody in a step."""
        if self._transport is not None and now_s - self._looked_at_s >= LOOK_S:
            self._looked_at_s = now_s
            for event in self._transport.wait(0):
                self._membership.notice(event)
            for worker in self._membership.stragglers.overdue(now_s):
                self._transport.kill(worker)

    def _partials(self, worker: int) -> Array:
        if worker == SERVER:
            return self._own.partials(worker)
        assert self._transport is not None
        return self._transport.partials(worker)

    def _redo(self, order: ComputeRequest, parts: Sequence[Part]) -> Part:
        """Compute the blocks of a lost or late worker here.

        What lies in the server's own slots is saved first.
        """
        for part in parts:
            if part.worker == SERVER:
                part.keep()
        self._own.send(SERVER, order)
        (event,) = self._own.wait(0)
        assert isinstance(event, Replied)
        return Part(SERVER, event.reply, self._own.partials(SERVER))
