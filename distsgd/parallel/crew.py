"""The crew: the server's hands.

It sends a step's blocks to workers, gathers their partials and sums them in the fixed tree.

Second and third lines of the step loop. A worker that is lost in the middle of a step costs only
its blocks: the server computes them itself, and the same bits come out. What arrives late, from an
earlier step or incarnation, is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import numpy as np

from distsgd.data.deal import Block
from distsgd.errors import ClusterError, ExchangeTimeoutError, NumericsError
from distsgd.parallel.exchange.contract import (
    Array,
    Event,
    Exchange,
    Joined,
    Layout,
    Lost,
    Reported,
    Worker,
)
from distsgd.parallel.exchange.in_process import InProcessExchange
from distsgd.parallel.messages import Description, Kind, Order, Report
from distsgd.parallel.plan import SERVER, Planner, Share
from distsgd.parallel.tree import Joins, Sums, joins, separators

_joins = lru_cache(maxsize=4096)(joins)
_NO_GRADIENT: Array = np.empty(0)


@dataclass(frozen=True, slots=True)
class Work:
    """Blocks to be computed.

    Those of training step `step`, or, for an evaluation, of the test rows.
    """

    kind: Kind
    step: int
    blocks: Sequence[Block]
    num_next: int = 0  # Blocks of the step that will follow, for reading ahead.


@dataclass(slots=True)
class Root:
    """The sum over a whole step: the root of the tree."""

    gradient_sum: Array  # [P]; may be a worker's slot: read it before the next step, do not write.
    sums: Sums


class Crew:
    """All that computes for one server.

    Itself and, if there is an exchange, the workers connected to it.
    """

    def __init__(
        self,
        layout: Layout,
        own: Worker,
        *,
        exchange: Exchange | None,
        planner: Planner,
        incarnation: int,
        step_timeout_s: float,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.weights = (
            exchange.weights if exchange else np.zeros(layout.num_parameters, layout.dtype)
        )
        self._identity = own.describe(SERVER)
        self._own = InProcessExchange(layout, own, weights=self.weights, worker_id=SERVER)
        self._exchange = exchange
        self._planner = planner
        self._incarnation = incarnation
        self._step_timeout_s = step_timeout_s
        self._say = say
        self._clock = clock
        self._workers: dict[int, Description] = {}
        self._scratch: list[Array] = []
        self._layout = layout

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that are connected."""
        return tuple(self._workers)

    def wait_for_members(self, count: int, timeout_s: float) -> None:
        """Block until `count` workers are connected.

        Raises:
            ExchangeTimeoutError: They are not, after `timeout_s` seconds; says who is missing.
        """
        deadline = self._clock() + timeout_s
        while len(self._workers) < count:
            assert self._exchange is not None
            left_s = deadline - self._clock()
            if left_s <= 0:
                missing = sorted(set(range(count)) - set(self._workers))
                raise ExchangeTimeoutError(f"workers {missing} to connect", timeout_s)
            for event in self._exchange.wait(min(left_s, 1.0)):
                self._notice(event)

    def gather(self, work: Work) -> Root:
        """Have all blocks of `work` computed, and sum them in the tree. Blocks.

        Raises:
            ExchangeTimeoutError: A worker did not answer in time; says which, and for which blocks.
        """
        started = self._clock()
        edges = separators(work.blocks)
        orders = self._orders(work)
        self._send(orders)
        reports = self._collect(orders, edges)
        root = self._finish(reports, edges)
        self._planner.observe(len(work.blocks), self._clock() - started)
        return root

    def close(self) -> None:
        """Let the workers go."""
        if self._exchange:
            self._exchange.close()

    def _orders(self, work: Work) -> dict[int, Order]:
        expected: dict[int, Share] = {}
        if work.num_next:
            expected = {share.worker: share for share in self._planner.shares(work.num_next)}
        return {
            share.worker: Order(
                self._incarnation,
                work.kind,
                work.step,
                share.first,
                share.last,
                *expected.get(share.worker, (0, 0, 0))[1:],
            )
            for share in self._planner.shares(len(work.blocks))
        }

    def _send(self, orders: dict[int, Order]) -> None:
        """The workers first: the server computes its own share while they compute theirs."""
        for worker, order in orders.items():
            if worker != SERVER:
                assert self._exchange is not None
                self._exchange.send(worker, order)
        if SERVER in orders:
            self._own.send(SERVER, orders[SERVER])

    def _collect(self, orders: dict[int, Order], edges: tuple[int, ...]) -> list[_Part]:
        """A part for every order, in block order, whoever computed it in the end."""
        parts: list[_Part] = []
        waiting = dict(orders)
        deadline = self._clock() + self._step_timeout_s
        while waiting:
            for event in self._events(waiting, deadline):
                order = waiting.get(event.worker)
                if order is None:
                    continue
                if isinstance(event, Reported) and event.report.answers(order):
                    del waiting[event.worker]
                    parts.append(_Part(event.worker, event.report, self._partials(event.worker)))
                elif isinstance(event, Lost):
                    del waiting[event.worker]
                    parts.append(self._redo(order, parts))
        parts.sort(key=lambda part: part.report.first)
        assert [p.report.first for p in parts[1:]] == [p.report.last for p in parts[:-1]]
        assert parts[-1].report.last == len(edges) - 1
        return parts

    def _events(self, waiting: dict[int, Order], deadline: float) -> list[Event]:
        if SERVER in waiting:
            return self._own.wait(0)
        assert self._exchange is not None
        left_s = deadline - self._clock()
        if left_s <= 0:
            slow = [f"worker {w} (blocks {o.first} to {o.last})" for w, o in waiting.items()]
            step = next(iter(waiting.values())).step
            raise ExchangeTimeoutError(f"{', '.join(slow)} at step {step}", self._step_timeout_s)
        events = self._exchange.wait(left_s)
        for event in events:
            self._notice(event)
        return events

    def _notice(self, event: Event) -> None:
        """Workers come and go; the next step is planned for those who are there."""
        if isinstance(event, Joined):
            self._check(event.description)
            self._workers[event.worker] = event.description
            self._say(f"worker {event.worker} is there (process {event.description.pid})")
        elif isinstance(event, Lost):
            self._workers.pop(event.worker, None)
            self._say(f"worker {event.worker} is lost ({event.reason}); others compute its blocks")
        else:
            return
        self._planner.set_members(list(self._workers))

    def _check(self, found: Description) -> None:
        """Refuse a worker that would compute something else than this process."""
        own = self._identity
        if found.version != own.version:
            raise ClusterError(
                f"worker {found.worker} runs distsgd {found.version}, the server {own.version}; "
                "install the same version on every node"
            )
        if found.data_digest != own.data_digest:
            raise ClusterError(
                f"worker {found.worker} sees other data than the server; "
                "the prepared data set must be the same on every node"
            )
        if found.probe != own.probe:
            raise NumericsError(
                f"worker {found.worker} computes other bits than the server (probe {found.probe}, "
                f"not {own.probe}); give every process the same numpy, processor kind and "
                "OPENBLAS_CORETYPE"
            )

    def _partials(self, worker: int) -> Array:
        if worker == SERVER:
            return self._own.partials(worker)
        assert self._exchange is not None
        return self._exchange.partials(worker)

    def _redo(self, order: Order, parts: Sequence[_Part]) -> _Part:
        """Compute the blocks of a lost worker here.

        What lies in the server's own slots is saved first.
        """
        for part in parts:
            if part.worker == SERVER:
                part.gradients = part.gradients[: len(part.report.nodes)].copy()
        self._own.send(SERVER, order)
        (event,) = self._own.wait(0)
        assert isinstance(event, Reported)
        return _Part(SERVER, event.report, self._own.partials(SERVER))

    def _finish(self, parts: Sequence[_Part], edges: tuple[int, ...]) -> Root:
        """Go on in the tree where the workers stopped."""
        if len(parts) == 1 and len(parts[0].report.nodes) == 1:
            return parts[0].roots()[0]
        open_edges: tuple[int, ...] = ()
        nodes: list[Root] = []
        for part in parts:
            report = part.report
            schedule = _joins(edges[report.first : report.last + 1])
            open_edges = (*open_edges[:-1], *schedule.edges)
            nodes += part.roots()
        return self._sum(
            nodes, _joins(open_edges), is_gradient=parts[0].report.kind is Kind.GRADIENT
        )

    def _sum(self, nodes: Sequence[Root], schedule: Joins, *, is_gradient: bool) -> Root:
        stack: list[Root] = []
        for node, pops in zip(nodes, schedule.pops, strict=True):
            stack.append(node)
            for _ in range(pops):
                right = stack.pop()
                left = stack[-1]
                if is_gradient:
                    out = self._scratch_array(len(stack) - 1)
                    np.add(left.gradient_sum, right.gradient_sum, out=out)
                    left = Root(out, left.sums)
                stack[-1] = Root(left.gradient_sum, left.sums.joined(right.sums))
        (root,) = stack
        return root

    def _scratch_array(self, at: int) -> Array:
        """Room for the sum at this height of the stack; workers' slots are theirs."""
        while len(self._scratch) <= at:
            self._scratch.append(np.zeros(self._layout.num_parameters, self._layout.dtype))
        return self._scratch[at]


@dataclass(slots=True)
class _Part:
    """One answered order: the report, and a gradient sum for each of its nodes."""

    worker: int
    report: Report
    gradients: Array  # [nodes or more, P]; of no meaning in an evaluation.

    def roots(self) -> list[Root]:
        """The nodes with their gradient sums."""
        if self.report.kind is Kind.EVALUATE:
            # It uses no slots, and may leave more nodes than there are.
            return [Root(_NO_GRADIENT, sums) for sums in self.report.nodes]
        return [Root(self.gradients[i], sums) for i, sums in enumerate(self.report.nodes)]
