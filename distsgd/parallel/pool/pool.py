"""The pool: all processes that compute for one server, itself among them.

In the loop (`server.step_runner`), `pool.gather` begins here: a step's blocks are sent to workers,
and their partials gathered. A worker that is lost or late costs only its blocks: the server
computes them itself, and the same bits come out. I/O only: who computes what is decided in
`autotuner`, what follows from what workers do in `members`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from distsgd.data.sampler import Partition
from distsgd.errors import WaitTimeoutError, WorkerError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.autotuner import (
    SERVER,
    Assigner,
    AssignmentKind,
    Candidate,
    Phases,
    assignments,
)
from distsgd.parallel.pool.crash_loop import CrashLoopGuard
from distsgd.parallel.pool.members import (
    Accept,
    Decision,
    Kill,
    Members,
    Membership,
    Recompute,
    Say,
    Welcome,
)
from distsgd.parallel.pool.reduction import Part, Reduction, Root
from distsgd.parallel.runner import Runner
from distsgd.parallel.transport.in_process import InProcessTransport
from distsgd.parallel.transport.interface import SPIN_S, BufferLayout, Replied, Transport
from distsgd.parallel.worker import Seen

LOOK_S = 0.1  # How often a server that computes alone looks who has come or gone.


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool works. No input to the bits.

    Attributes:
        assignment: "autotune" uses the processes that are fastest, "all" every worker always.
        step_timeout_s: The longest that a worker may take for its part of a step.
        incarnation: How often the run's server was started anew; replies to another are ignored.
        spin: Whether the processes of a step may look for the next message without falling asleep.
    """

    assignment: AssignmentKind
    step_timeout_s: float
    incarnation: int = 0
    spin: bool = True


@dataclass(frozen=True, slots=True)
class Work:
    """Blocks to be computed: those of training step `step`, or, for an evaluation, of test rows."""

    kind: RequestKind
    step: int
    partition: Partition
    num_next: int = 0  # Blocks of the step that will follow, for reading ahead.

    def num_rows(self, request: ComputeRequest) -> int:
        """Rows of the blocks of `request`."""
        blocks = self.partition.blocks
        return blocks[request.last - 1].last - blocks[request.first].first

    @property
    def num_blocks(self) -> int:
        """All blocks of the step."""
        return len(self.partition.blocks)


class WorkerPool:
    """What computes the steps of one server: its own process, and workers over `transport`.

    Args:
        layout: The shapes that all share.
        own: The server's own worker.
        transport: How workers are reached; None where the server computes alone.
        settings: See `PoolSettings`.
        crash_loop: Counts deaths; None: a guard of this pool's own.
        say: Takes a line for the user.
        clock: Seconds.
    """

    def __init__(
        self,
        layout: BufferLayout,
        own: Runner,
        *,
        transport: Transport | None,
        settings: PoolSettings,
        crash_loop: CrashLoopGuard | None = None,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.weights = (
            transport.weights if transport else np.zeros(layout.num_parameters, layout.dtype)
        )
        self.phases = Phases()
        self.is_settled = False  # Is it known who is best for steps like the last one?
        self.computed_by: tuple[int, ...] = ()  # Who was asked at the last step; -1: the server.
        self._viewer = own
        self._own = InProcessTransport(layout, own, weights=self.weights, worker_id=SERVER)
        self._transport: Transport = transport or self._own
        self._incarnation = settings.incarnation
        self._crash_loop = crash_loop or CrashLoopGuard()
        self._clock, self._looked_at_s, self._say = clock, clock(), say
        spins = settings.spin and self._transport.can_spin
        self._assigner = Assigner(settings.assignment, cores=None if spins else 1)
        self._members = Members(own.describe(SERVER), step_timeout_s=settings.step_timeout_s)
        self._reduction = Reduction(layout)

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that are connected; can be read from another thread."""
        return self._members.connected

    @property
    def membership(self) -> Membership:
        """The same, with their nodes; can be read from another thread."""
        return self._members.membership

    def expect(self, num_workers: int) -> None:
        """There will be `num_workers` workers, and no more; callable from another thread."""
        self._members.expect(num_workers)

    def wait_for_members(self, count: int, timeout_s: float) -> None:
        """Block until `count` workers are connected, or as many as are expected.

        Raises:
            WaitTimeoutError: They are not, after `timeout_s` seconds; names those that are missing.
            ClusterError: A worker joined that would compute something else than this process.
        """
        deadline = self._clock() + timeout_s
        while len(self.members) < min(count, self._members.num_expected):
            left_s = deadline - self._clock()
            if left_s <= 0:
                missing = sorted(set(range(count)) - set(self.members))
                raise WaitTimeoutError(f"workers {missing} to connect", timeout_s)
            self._look(min(left_s, 1.0))

    def gather(self, work: Work) -> Root:
        """Have all blocks of `work` computed, and sum them in the tree. Blocks.

        It ends whatever the workers do: what they do not give in time is computed here.

        Raises:
            ClusterError: Three processes died one after the other on the same blocks.
        """
        started = self._clock()
        if started - self._looked_at_s >= LOOK_S:  # A server that computes alone does not wait.
            self._looked_at_s = started
            self._look()
        fit, tuner = self._members.fit(work.step), None
        if work.kind is RequestKind.EVALUATE:
            candidate = self._assigner.unmeasured(work.num_blocks, fit)
        else:
            tuner = self._assigner.tuner(work.num_blocks, fit)
            candidate = tuner.candidate
        requests = self._requests(work, candidate, fit)
        parts = self._collect(work, requests, started, SPIN_S if candidate.spin else 0.0)
        collected = self._clock()
        root = self._sum(work, parts)
        ended = self._clock()
        replies = [part.reply for part in parts]
        self.phases.add(replies, gather_s=collected - started, reduce_s=ended - collected)
        if tuner is not None:
            self.computed_by = tuple(requests)
            self.is_settled = tuner.is_settled
            tuner.observe(ended - started)
            self._carry_out(self._members.step_done(work.step))
        return root

    def view(self, step: int) -> Seen:
        """What the server's own worker sees of training step `step`, by the weights as they are."""
        return self._viewer.view(step)

    def close(self) -> None:
        """Let the workers go."""
        self._transport.close()

    def process_of(self, worker: int) -> int | None:
        """The process of `worker` on this node; None where the kernel does not vouch for it."""
        return self._transport.pid(worker)

    def _requests(
        self, work: Work, candidate: Candidate, fit: tuple[int, ...]
    ) -> dict[int, ComputeRequest]:
        """What each process is asked, in block order."""
        assigned = assignments(work.num_blocks, candidate.workers)
        later = assigned
        if work.num_next != work.num_blocks:
            tuner = self._assigner.tuner(work.num_next, fit)
            later = assignments(work.num_next, tuner.candidate.workers)
        expected = {worker: (first, last) for worker, first, last in later}
        return {
            worker: ComputeRequest(
                self._incarnation,
                work.kind,
                work.step,
                first,
                last,
                *expected.get(worker, (0, 0)),
                spin=candidate.spin,
            )
            for worker, first, last in assigned
        }

    def _collect(
        self, work: Work, requests: dict[int, ComputeRequest], started: float, spin_s: float
    ) -> list[Part]:
        """A part for every request, in block order, by whichever process in the end."""
        for worker, request in requests.items():
            if worker != SERVER:
                self._transport.send(worker, request)
        for worker, request in requests.items():
            if worker != SERVER:
                num_rows = work.num_rows(request)
                self._members.ask(worker, request, num_rows=num_rows, now_s=started)
        parts: list[Part] = []
        if SERVER in requests:  # While the workers compute theirs.
            parts.append(self._compute_here(requests[SERVER], ()))
            self._members.computed_here(parts[0].reply)
        for decision in self._decisions(spin_s=spin_s):
            if isinstance(decision, Accept):
                worker, reply = decision
                parts.append(Part(worker, reply, self._transport.partials(worker)))
            else:
                parts.append(self._recompute(decision, parts))
        parts.sort(key=lambda part: part.reply.first)
        return parts

    def _decisions(self, *, spin_s: float = 0.0) -> Iterator[Accept | Recompute]:
        """One for each request on its way, as they come; blocks until the last deadline at most.

        Here alone the pool waits. A decision is to be carried out before the next is taken.
        """
        members = self._members
        while members.is_waiting:
            timeout_s = max(0.0, members.next_deadline() - self._clock())
            events = self._transport.wait(timeout_s, spin_s=spin_s)
            now_s = self._clock()
            if not events:  # A reply that has arrived counts, however late it is.
                yield from self._carry_out(members.tick(now_s))
            for event in events:
                yield from self._carry_out(members.handle(event, now_s))

    def _look(self, timeout_s: float = 0.0) -> None:
        """Who has come, gone or stopped, while no request is on its way; blocks for `timeout_s`."""
        for event in self._transport.wait(timeout_s):
            left = self._carry_out(self._members.handle(event, self._clock()))
            assert not left
        left = self._carry_out(self._members.tick(self._clock()))
        assert not left

    def _carry_out(self, decisions: Sequence[Decision]) -> list[Accept | Recompute]:
        """Do what is decided, and return what only the caller can do."""
        left: list[Accept | Recompute] = []
        for decision in decisions:
            if isinstance(decision, Say):
                self._say(decision.text)
            elif isinstance(decision, Kill):
                self._transport.kill(decision.worker)
            elif isinstance(decision, Welcome):
                self._assigner.forget()
            else:
                left.append(decision)
        return left

    def _recompute(self, decision: Recompute, parts: Sequence[Part]) -> Part:
        """The blocks of a lost or late worker; those on which a worker died are written down."""
        request = decision.request
        if decision.reason == "late":
            return self._compute_here(request, parts)
        self._crash_loop.died(request)
        try:
            part = self._compute_here(request, parts)
        except Exception:  # No death: it ends the run, and says why.
            self._crash_loop.cleared()
            raise
        self._crash_loop.cleared()
        return part

    def _compute_here(self, request: ComputeRequest, parts: Sequence[Part]) -> Part:
        """What the server itself gives; what `parts` have in its slots is saved first."""
        for part in parts:
            if part.worker == SERVER:
                part.keep()
        self._own.send(SERVER, request)
        (event,) = self._own.wait(0)
        assert isinstance(event, Replied)
        return Part(SERVER, event.reply, self._own.partials(SERVER))

    def _sum(self, work: Work, parts: list[Part]) -> Root:
        """The root over `parts`; an invalid one is looked into: is it a worker, or the run?"""
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
        """The same blocks computed here; where only the worker's result is invalid, kill it."""
        first, last = part.reply.first, part.reply.last
        request = ComputeRequest(self._incarnation, work.kind, work.step, first, last, 0, 0)
        again = self._compute_here(request, parts)
        again.keep()
        if again.is_finite and not (part.is_finite and part.has_shape_of(again)):
            what = f"an invalid partial for {self._crash_loop.name(request)}"
            self._carry_out(self._members.refute(part.worker, work.step, what))
        return again
