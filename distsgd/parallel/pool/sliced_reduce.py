"""Summing the partials of a step by several processes, each a range of the parameters.

Third line of the step loop, where there is so much to add that one process would be long: many
workers, many parameters. A range is summed in the order of the tree whoever does it, so it is the
same bits; what a worker does not give in time is summed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from time import perf_counter

from distsgd.base.arrays import Array
from distsgd.base.cores import num_cores
from distsgd.optim.chunks import chunks
from distsgd.parallel.gradient_sum import ChunkedSum, GradientSum
from distsgd.parallel.messages import PartialRef, ReduceRequest
from distsgd.parallel.pool.membership import Membership
from distsgd.parallel.transport.interface import Lost, Reduced, SharingTransport

WORTH_IT = 1 << 21  # Numbers to read: a millisecond, where asking others costs a tenth of one.
MOST_CHUNKS = 4096  # A report with a number for each still is one message.
PATIENCE_FACTOR = 4.0
PATIENCE_FLOOR_S = 0.05


class SlicedReduce:
    """Asks workers on this node to sum; the server takes a range itself."""

    def __init__(
        self,
        transport: SharingTransport,
        membership: Membership,
        *,
        incarnation: int,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._transport, self._membership = transport, membership
        self._incarnation = incarnation
        self._most_processes = num_cores()
        self._clock = clock

    def is_worth_it(self, nodes: Sequence[PartialRef], length: int) -> bool:
        """Is it faster than by the server alone, and possible?"""
        return (
            self._most_processes > 1
            and len(nodes) > 1
            and len(nodes) * length >= WORTH_IT
            and 1 < len(chunks(length)) <= MOST_CHUNKS
            and self._transport.can_share({node.worker for node in nodes})
        )

    def sum(
        self,
        step: int,
        nodes: Sequence[PartialRef],
        own: GradientSum,
        *,
        arrays: list[Array],
        room: Array,
    ) -> ChunkedSum:
        """Sum `arrays`, each ``[P]``, which are what `nodes` name. Blocks, but not for ever.

        Args:
            step: The training step.
            nodes: In block order.
            own: What sums the server's range.
            arrays: What `nodes` name, as the server sees it.
            room: Where it leaves its range; ``[P]``.
        """
        at, pops = chunks(len(room)), [node.pops for node in nodes]
        orders, first = self._orders(step, nodes, len(at))
        asked = self._ask(orders, {node.worker for node in nodes})
        started = self._clock()
        own_sum = own.sum_chunks(arrays, pops, at[first:], out=room)
        patience_s = max(PATIENCE_FLOOR_S, PATIENCE_FACTOR * (self._clock() - started))
        answers = self._collect(asked, patience_s)
        sums = []
        for worker, order in orders.items():
            its_chunks, norms = at[order.first : order.last], answers.get(worker)
            if norms is not None and all(map(isfinite, norms)):
                theirs = self._transport.reduced_slice(worker)
                summed = ChunkedSum([theirs[chunk] for chunk in its_chunks], norms)
            else:
                summed = own.sum_chunks(arrays, pops, its_chunks, out=room)
                if norms is not None and all(map(isfinite, summed.squared_norms)):
                    self._membership.summed_wrong(worker, step)
                    self._transport.kill(worker)
            sums.append(summed)
        return joined([*sums, own_sum])

    def _ask(self, orders: dict[int, ReduceRequest], sources: set[int]) -> dict[int, ReduceRequest]:
        """Send what can still be sent: by each sending, somebody may be found to be gone."""
        asked = {}
        for worker, order in orders.items():
            if self._transport.can_share(sources):
                self._transport.send_reduce(worker, order)
                asked[worker] = order
        return asked

    def _orders(
        self, step: int, nodes: Sequence[PartialRef], num_chunks: int
    ) -> tuple[dict[int, ReduceRequest], int]:
        """What is asked of whom, and where the server's own range begins."""
        workers = sorted({node.worker for node in nodes})
        count = min(len(workers) + 1, self._most_processes, num_chunks)
        cuts = [num_chunks * i // count for i in range(count + 1)]
        orders = {
            worker: ReduceRequest(self._incarnation, step, first, last, tuple(nodes))
            for worker, first, last in zip(workers, cuts, cuts[1:-1], strict=False)
        }
        return orders, cuts[-2]

    def _collect(
        self, orders: dict[int, ReduceRequest], patience_s: float
    ) -> dict[int, list[float]]:
        """The squared norms that were reported, by worker; others are lost or late."""
        found: dict[int, list[float]] = {}
        waiting = dict(orders)
        until = self._clock() + patience_s
        while waiting:
            events = self._transport.wait(max(0.0, until - self._clock()))
            for event in events:
                self._membership.notice(event)
                order = waiting.get(event.worker)
                if order is None:
                    continue
                if isinstance(event, Reduced) and event.reply.answers(order):
                    found[event.worker] = list(event.reply.squared_norms)
                    del waiting[event.worker]
                elif isinstance(event, Lost):
                    del waiting[event.worker]
            now = self._clock()
            if now >= until:
                for worker, order in waiting.items():
                    self._membership.is_late_in_summing(worker, now_s=now, step=order.step)
                break
        # One that has reported and died since has taken its memory's descriptor along.
        return {worker: norms for worker, norms in found.items() if self._is_there(worker)}

    def _is_there(self, worker: int) -> bool:
        return self._transport.can_share([worker])


def joined(sums: Sequence[ChunkedSum]) -> ChunkedSum:
    """Ranges one after the other."""
    found = ChunkedSum([], [])
    for summed in sums:
        found.chunks.extend(summed.chunks)
        found.squared_norms.extend(summed.squared_norms)
    return found
