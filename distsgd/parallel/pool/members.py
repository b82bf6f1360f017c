"""The membership of a pool as a state machine: events and the time go in, decisions come out.

Here it is decided who can be given work, which reply counts, whose blocks are computed again, who
backs off and who is killed. No input to the bits: a block is the same bits wherever it is computed.
No I/O, no waiting and no clock; `pool` carries the decisions out.

A request is late when it takes a stated factor longer than such requests have been taking. The
server then computes the blocks as a backup. The straggler has a pending reply: until that has come
it gets no work, and after it the worker backs off, the longer the more often it was late. One whose
reply stays pending is killed: a stopped process (SIGSTOP) keeps its connection, and nothing else
would ever notice. A single short delay is the operating system's; a worker for which step after
step waits is slow, and backs off as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from sys import maxsize
from typing import Literal, NamedTuple

from distsgd.errors import ClusterError, NumericsError, WorkerError
from distsgd.parallel.messages import (
    ComputeReply,
    ComputeRequest,
    RequestKind,
    WorkerInfo,
)
from distsgd.parallel.numerics import PIN
from distsgd.parallel.pool.autotuner import SERVER
from distsgd.parallel.transport.interface import Event, Joined, Lost

PATIENCE_FACTOR = 4.0
PATIENCE_FLOOR_S = 0.05  # Shorter delays are the operating system's.
SLOW_FLOOR_S = 0.001
SLOW_STEPS = 8  # One after the other: so often it is no chance.
KILL_AFTER_S = 5.0
SMOOTHING = 0.1
FIRST_BACKOFF_STEPS = 64
LONGEST_BACKOFF_STEPS = 1 << 16
FORGIVEN_AFTER = 16  # Times a backoff, worked without being late.


class Accept(NamedTuple):
    """`reply` answers what `worker` was asked: use it, before the worker is sent anything else."""

    worker: int
    reply: ComputeReply


class Recompute(NamedTuple):
    """`worker` does not answer `request` any more, or not in time: compute it in the server."""

    worker: int
    request: ComputeRequest
    reason: Literal["lost", "late"]


class Kill(NamedTuple):
    """End the process of `worker`; it will show as lost."""

    worker: int


class Welcome(NamedTuple):
    """`worker` can be given work from the next step on: what was measured without it is old."""

    worker: int


class Say(NamedTuple):
    """Tell the user `text`."""

    text: str


Decision = Accept | Recompute | Kill | Welcome | Say


class Membership(NamedTuple):
    """The workers that are connected, the names of their nodes, and how often one came again."""

    workers: tuple[int, ...]
    nodes: tuple[str, ...]
    num_rejoined: int


class _Asked(NamedTuple):
    """A request on its way; times are seconds of the pool's clock."""

    request: ComputeRequest
    num_rows: int
    since_s: float
    deadline_s: float


@dataclass(slots=True)
class _Straggler:
    """What is known of a worker that was late or slow."""

    pending_since_s: float | None = None  # Infinite for one that is being killed.
    backs_off_until_step: int = 0
    backoff_steps: int = FIRST_BACKOFF_STEPS


class Members:
    """The workers that are connected, and what each was asked; `own` describes the server.

    Every request passed to `ask` ends in exactly one `Accept` or `Recompute`, at the latest from
    the first `tick` after its deadline. All other replies are ignored: those on an earlier request,
    step or incarnation, and those of workers that were not asked.
    """

    def __init__(self, own: WorkerInfo, *, step_timeout_s: float) -> None:
        self._own = own
        self._step_timeout_s = step_timeout_s
        self.connected: tuple[int, ...] = ()  # Replaced as a whole: other threads read it.
        self._nodes: dict[int, str] = {}  # Of all that ever were.
        self._num_rejoined = 0
        self.num_expected = maxsize
        self._asked: dict[int, _Asked] = {}
        self._stragglers: dict[int, _Straggler] = {}
        self._row_s: dict[RequestKind, float] = {}  # Moving average of the seconds a row takes.
        self._seconds: dict[int, float] = {}  # Of each process that computed in this step.
        self._slow: tuple[int | None, int] = (None, 0)  # Whom steps wait for; how many did so far.

    @property
    def is_waiting(self) -> bool:
        """Is any request on its way, neither answered nor given up?"""
        return bool(self._asked)

    @property
    def membership(self) -> Membership:
        """Who is connected; callable from another thread."""
        workers = self.connected
        return Membership(workers, tuple(self._nodes[it] for it in workers), self._num_rejoined)

    def expect(self, num_workers: int) -> None:
        """One with a higher number leaves as was asked; callable from another thread."""
        self.num_expected = num_workers

    def fit(self, step: int) -> tuple[int, ...]:
        """The workers that can be given work at `step`, in ascending order."""
        if not self._stragglers:
            return self.connected
        return tuple(
            worker
            for worker in self.connected
            if (known := self._stragglers.get(worker)) is None
            or (known.pending_since_s is None and known.backs_off_until_step <= step)
        )

    def ask(self, worker: int, request: ComputeRequest, *, num_rows: int, now_s: float) -> None:
        """`worker` is sent `request`, which is for `num_rows` rows."""
        expected_s = self._row_s.get(request.kind, math.inf) * num_rows
        self._wait_for(worker, request, num_rows, now_s, expected_s)

    def next_deadline(self) -> float:
        """When `tick` will have something to decide; infinite where nothing is waited for."""
        return min([asked.deadline_s for asked in self._asked.values()], default=math.inf)

    def handle(self, event: Event, now_s: float) -> Sequence[Decision]:
        """What follows from `event`; nothing where a reply is not waited for.

        Raises:
            ClusterError: A worker joined that would compute something else than this process.
        """
        if isinstance(event, Joined):
            return self._joined(event)
        if isinstance(event, Lost):
            return self._lost(event)
        worker = event.worker
        asked = self._asked.get(worker)
        if asked is None or not event.reply.answers(asked.request):
            if (straggler := self._stragglers.get(worker)) is not None:
                straggler.pending_since_s = None
            return ()
        del self._asked[worker]
        self._took(worker, asked.request.kind, asked.num_rows, now_s - asked.since_s)
        return (Accept(worker, event.reply),)

    def tick(self, now_s: float) -> Sequence[Decision]:
        """What follows from the time alone: call it when no event came."""
        decisions: list[Decision] = []
        for worker, asked in list(self._asked.items()):
            if now_s >= asked.deadline_s:
                decisions += self._late(worker, asked.request, now_s)
        for worker, straggler in self._stragglers.items():
            pending_s = straggler.pending_since_s
            if pending_s is not None and now_s - pending_s > KILL_AFTER_S:
                straggler.pending_since_s = math.inf
                decisions.append(Kill(worker))
        return decisions

    def refute(self, worker: int, step: int, what: str) -> Sequence[Decision]:
        """`worker` sent `what`, which is invalid; the same computed by the server is valid."""
        reason = (
            f"sent {what}; computed by the server it is valid, so the run continues and that "
            "worker is killed"
        )
        return (Say(str(WorkerError(worker, step, reason))), Kill(worker))

    def computed_here(self, reply: ComputeReply) -> None:
        """The server has computed its own blocks of a step."""
        if reply.kind is not RequestKind.EVALUATE:
            self._seconds[SERVER] = (reply.read_us + reply.compute_us) * 1e-6

    def step_done(self, step: int) -> Sequence[Decision]:
        """Training step `step` is gathered: does every step wait for the same worker?"""
        slow = self._slow_one()
        self._seconds.clear()
        if slow is None or slow == SERVER:
            return ()
        self._back_off(slow, step)
        return (Say(f"worker {slow} is slow, seen at step {step}; {self._heir(slow)} its blocks"),)

    def _wait_for(
        self, worker: int, request: ComputeRequest, num_rows: int, now_s: float, expected_s: float
    ) -> None:
        assert worker not in self._asked
        patience_s = max(PATIENCE_FLOOR_S, PATIENCE_FACTOR * expected_s)
        deadline_s = now_s + min(patience_s, self._step_timeout_s)
        self._asked[worker] = _Asked(request, num_rows, now_s, deadline_s)

    def _joined(self, event: Joined) -> Sequence[Decision]:
        _check(event.description, self._own)
        worker = event.worker
        self._num_rejoined += worker in self._nodes
        self._nodes[worker] = event.description.host
        self.connected = tuple(sorted({*self.connected, worker}))
        self._stragglers.pop(worker, None)
        host = event.description.host
        place = "" if host == self._own.host else f" on {host}"
        text = f"worker {worker} has joined (process {event.description.pid}{place})"
        return (Welcome(worker), Say(text))

    def _lost(self, event: Lost) -> Sequence[Decision]:
        worker = event.worker
        self.connected = tuple(other for other in self.connected if other != worker)
        self._stragglers.pop(worker, None)
        if worker >= self.num_expected:
            said = Say(f"worker {worker} has left, as was asked")
        else:
            said = Say(f"worker {worker} is lost ({event.reason}); {self._heir(worker)} its blocks")
        asked = self._asked.pop(worker, None)
        return (said,) if asked is None else (said, Recompute(worker, asked.request, "lost"))

    def _late(self, worker: int, request: ComputeRequest, now_s: float) -> Sequence[Decision]:
        del self._asked[worker]
        self._stragglers.setdefault(worker, _Straggler()).pending_since_s = now_s
        self._back_off(worker, request.step)
        text = f"worker {worker} is late at step {request.step}; the server computes its blocks"
        return (Say(text), Recompute(worker, request, "late"))

    def _back_off(self, worker: int, step: int) -> None:
        """No work for some steps, for twice as many each time, unless the last was long ago."""
        record = self._stragglers.setdefault(worker, _Straggler())
        if step > record.backs_off_until_step + FORGIVEN_AFTER * record.backoff_steps:
            record.backoff_steps = FIRST_BACKOFF_STEPS
        record.backs_off_until_step = step + record.backoff_steps
        record.backoff_steps = min(2 * record.backoff_steps, LONGEST_BACKOFF_STEPS)

    def _took(self, worker: int, kind: RequestKind, num_rows: int, seconds: float) -> None:
        row_s = seconds / num_rows
        known_s = self._row_s.get(kind, row_s)
        self._row_s[kind] = known_s + SMOOTHING * (row_s - known_s)
        if kind is not RequestKind.EVALUATE:
            self._seconds[worker] = seconds

    def _slow_one(self) -> int | None:
        """The process for which the last steps waited, all of them; None where there is none."""
        seconds = self._seconds
        if not seconds:
            return None
        slowest = max(seconds, key=seconds.__getitem__)
        most_s = seconds[slowest]
        if len(seconds) == 1 or most_s < SLOW_FLOOR_S:
            self._slow = (None, 0)
            return None
        others_s = median_low([its for worker, its in seconds.items() if worker != slowest])
        if most_s < max(SLOW_FLOOR_S + others_s, PATIENCE_FACTOR * others_s):
            self._slow = (None, 0)
            return None
        count = self._slow[1] + 1 if self._slow[0] == slowest else 1
        self._slow = (slowest, count % SLOW_STEPS)
        return slowest if count == SLOW_STEPS else None

    def _heir(self, worker: int) -> str:
        """Who computes the blocks of `worker` now, and that it does."""
        has_others = any(other != worker for other in self.connected)
        return "others compute" if has_others else "the server computes"


def _check(found: WorkerInfo, own: WorkerInfo) -> None:
    """Refuse a worker that would compute something else than this process."""
    if found.version != own.version:
        raise ClusterError(
            f"worker {found.worker} on node {found.host} runs distsgd {found.version}, the server "
            f"on node {own.host} {own.version}; "
            "install the same version on every node"
        )
    if found.data_digest != own.data_digest:
        raise ClusterError(
            f"worker {found.worker} on node {found.host} sees other data than the server on node "
            f"{own.host}; "
            "the prepared data set must be the same on every node"
        )
    if found.probe != own.probe:
        raise NumericsError(
            f"worker {found.worker} on node {found.host} computes other bits than the server on "
            f"node {own.host}: it has {found.arithmetic}, the server {own.arithmetic}; {PIN}"
        )
