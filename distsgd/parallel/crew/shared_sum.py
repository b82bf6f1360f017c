"""Summing the partials of a step by several processes, each a range of the parameters.

Third line of the step loop, where there is so much to add that one process would be long: many
workers, many parameters. A range is summed in the order of the tree whoever does it, so it is the
same bits; what a worker does not give in time is summed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from distsgd.optim.pieces import pieces
from distsgd.parallel.crew.plan import num_cores
from distsgd.parallel.crew.roster import Roster
from distsgd.parallel.exchange.contract import Array, Lost, SharingExchange, Summed
from distsgd.parallel.gradient_sum import GradientSum, PiecewiseSum
from distsgd.parallel.messages import Node, SumOrder

WORTH_IT = 1 << 21  # Numbers to read: a millisecond, where asking others costs a tenth of one.
MOST_PIECES = 4096  # A report with a number for each still is one message.
PATIENCE_FACTOR = 4.0
PATIENCE_FLOOR_S = 0.05


class SharedSum:
    """Asks workers on this node to sum; the server takes a share itself."""

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
            and 1 < len(pieces(length)) <= MOST_PIECES
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
    ) -> PiecewiseSum:
        """Sum `arrays`, each ``[P]``, which are what `nodes` name. Blocks, but not for ever.

        Args:
            step: The training step.
            nodes: In block order.
            own: What sums the server's share.
            arrays: What `nodes` name, as the server sees it.
            room: Where it leaves its share; ``[P]``.
        """
        at, pops = pieces(len(room)), [node.pops for node in nodes]
        orders, first = self._orders(step, nodes, len(at))
        for worker, order in orders.items():
            self._exchange.send_sum(worker, order)
        started = self._clock()
        last_share = own.sum_pieces(arrays, pops, at[first:], out=room)
        patience_s = max(PATIENCE_FLOOR_S, PATIENCE_FACTOR * (self._clock() - started))
        answers = self._collect(orders, patience_s)
        shares = []
        for worker, order in orders.items():
            asked = at[order.first : order.last]
            if worker in answers:
                theirs = self._exchange.sum_of_others(worker)
                share = PiecewiseSum([theirs[piece] for piece in asked], answers[worker])
            else:
                share = own.sum_pieces(arrays, pops, asked, out=room)
            shares.append(share)
        return joined([*shares, last_share])

    def _orders(
        self, step: int, nodes: Sequence[Node], num_pieces: int
    ) -> tuple[dict[int, SumOrder], int]:
        """What is asked of whom, and where the server's own share begins."""
        workers = sorted({node.worker for node in nodes})
        count = min(len(workers) + 1, self._most_processes, num_pieces)
        cuts = [num_pieces * i // count for i in range(count + 1)]
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
                    self._roster.outran(worker, now_s=now, step=order.step)
                break
        # One that has reported and died since has taken its memory's descriptor along.
        return {worker: norms for worker, norms in found.items() if self._is_there(worker)}

    def _is_there(self, worker: int) -> bool:
        return self._exchange.can_share([worker])


def joined(shares: Sequence[PiecewiseSum]) -> PiecewiseSum:
    """Shares one after the other."""
    found = PiecewiseSum([], [])
    for share in shares:
        found.pieces.extend(share.pieces)
        found.squared_norms.extend(share.squared_norms)
    return found
