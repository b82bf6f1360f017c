"""Summing the partials of a step by several processes, each a range of the parameters.

Third line of the step loop, where there is so much to add that one process would be long: many
workers, many parameters. A range is summed in the order of the tree whoever does it, so it is the
same bits; what a worker does not give in time is summed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from time import perf_counter

from distsgd.optim.spans import spans
from distsgd.parallel.crew.plan import num_cores
from distsgd.parallel.crew.roster import Roster
from distsgd.parallel.exchange.contract import Array, Lost, SharingExchange, Summed
from distsgd.parallel.gradient_sum import GradientSum, SpannedSum
from distsgd.parallel.messages import Node, SumOrder

WORTH_IT = 1 << 21  # Numbers to read: a millisecond, where asking others costs a tenth of one.
MOST_SPANS = 4096  # A report with a number for each still is one message.
PATIENCE_FACTOR = 4.0
PATIENCE_FLOOR_S = 0.05


class SharedSum:
    """Asks workers on this node to sum; the server takes a range itself."""

    def __init__(
        self,
        exchange: SharingExchange,
        roster: Roster,
        *,
        incarnation: int,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._exchange, self._roster = exchange, roster
        self._incarnation = incarnation
        self._most_processes = num_cores()
        self._clock = clock

    def is_worth_it(self, nodes: Sequence[Node], length: int) -> bool:
        """Is it faster than by the server alone, and possible?"""
        return (
            self._most_processes > 1
            and len(nodes) > 1
            and len(nodes) * length >= WORTH_IT
            and 1 < len(spans(length)) <= MOST_SPANS
            and self._exchange.can_share({node.worker for node in nodes})
        )

    def sum(
        self,
        step: int,
        nodes: Sequence[Node],
        own: GradientSum,
        *,
        arrays: list[Array],
        room: Array,
    ) -> SpannedSum:
        """Sum `arrays`, each ``[P]``, which are what `nodes` name. Blocks, but not for ever.

        Args:
            step: The training step.
            nodes: In block order.
            own: What sums the server's range.
            arrays: What `nodes` name, as the server sees it.
            room: Where it leaves its range; ``[P]``.
        """
        at, pops = spans(len(room)), [node.pops for node in nodes]
        orders, first = self._orders(step, nodes, len(at))
        asked = self._ask(orders, {node.worker for node in nodes})
        started = self._clock()
        own_sum = own.sum_spans(arrays, pops, at[first:], out=room)
        patience_s = max(PATIENCE_FLOOR_S, PATIENCE_FACTOR * (self._clock() - started))
        answers = self._collect(asked, patience_s)
        sums = []
        for worker, order in orders.items():
            its_spans, norms = at[order.first : order.last], answers.get(worker)
            if norms is not None and all(map(isfinite, norms)):
                theirs = self._exchange.sum_of_others(worker)
                summed = SpannedSum([theirs[span] for span in its_spans], norms)
            else:
                summed = own.sum_spans(arrays, pops, its_spans, out=room)
                if norms is not None and all(map(isfinite, summed.squared_norms)):
                    self._roster.summed_wrong(worker, step)
                    self._exchange.end(worker)
            sums.append(summed)
        return joined([*sums, own_sum])

    def _ask(self, orders: dict[int, SumOrder], sources: set[int]) -> dict[int, SumOrder]:
        """Send what can still be sent: by each sending, somebody may be found to be gone."""
        asked = {}
        for worker, order in orders.items():
            if self._exchange.can_share(sources):
                self._exchange.send_sum(worker, order)
                asked[worker] = order
        return asked

    def _orders(
        self, step: int, nodes: Sequence[Node], num_spans: int
    ) -> tuple[dict[int, SumOrder], int]:
        """What is asked of whom, and where the server's own range begins."""
        workers = sorted({node.worker for node in nodes})
        count = min(len(workers) + 1, self._most_processes, num_spans)
        cuts = [num_spans * i // count for i in range(count + 1)]
        orders = {
            worker: SumOrder(self._incarnation, step, first, last, tuple(nodes))
            for worker, first, last in zip(workers, cuts, cuts[1:-1], strict=False)
        }
        return orders, cuts[-2]

    def _collect(self, orders: dict[int, SumOrder], patience_s: float) -> dict[int, list[float]]:
        """The squared norms that were reported, by worker; others are lost or late."""
        found: dict[int, list[float]] = {}
        waiting = dict(orders)
        until = self._clock() + patience_s
        while waiting:
            events = self._exchange.wait(max(0.0, until - self._clock()))
            for event in events:
                self._roster.notice(event)
                order = waiting.get(event.worker)
                if order is None:
                    continue
                if isinstance(event, Summed) and event.report.answers(order):
                    found[event.worker] = list(event.report.squared_norms)
                    del waiting[event.worker]
                elif isinstance(event, Lost):
                    del waiting[event.worker]
            now = self._clock()
            if now >= until:
                for worker, order in waiting.items():
                    self._roster.is_late_in_summing(worker, now_s=now, step=order.step)
                break
        # One that has reported and died since has taken its memory's descriptor along.
        return {worker: norms for worker, norms in found.items() if self._is_there(worker)}

    def _is_there(self, worker: int) -> bool:
        return self._exchange.can_share([worker])


def joined(sums: Sequence[SpannedSum]) -> SpannedSum:
    """Ranges one after the other."""
    found = SpannedSum([], [])
    for summed in sums:
        found.spans.extend(summed.spans)
        found.squared_norms.extend(summed.squared_norms)
    return found
