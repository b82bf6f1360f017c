"""Summing the partials of a step by several processes, each a range of the parameters.

Third line of the step loop, where there is so much to add that one process would take long: many
workers, many parameters. A range is summed in the order of the tree by whichever process sums it,
so it is the same bits; what a worker does not give in time is summed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from distsgd.base.arrays import Array
from distsgd.optim.chunks import chunks
from distsgd.parallel.messages import PartialRef, ReduceReply, ReduceRequest
from distsgd.parallel.numerics import num_cores
from distsgd.parallel.pool.dispatcher import Dispatcher
from distsgd.parallel.pool.members import Accept, Members
from distsgd.parallel.transport.interface import SharingTransport
from distsgd.parallel.tree import ChunkedSum, GradientSum

WORTH_IT = 1 << 21  # Numbers to read: a millisecond, where asking others costs a tenth of one.
MOST_CHUNKS = 4096  # A reply with a number for each still is one message.


class SlicedReduce:
    """Asks workers on this node to sum; the server takes a range itself."""

    def __init__(
        self,
        transport: SharingTransport,
        members: Members,
        dispatcher: Dispatcher,
        incarnation: int,
    ) -> None:
        self._transport, self._members, self._dispatcher = transport, members, dispatcher
        self._incarnation = incarnation
        self._most_processes = num_cores()

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
        requests, first = self._requests(step, nodes, len(at))
        asked = self._send(requests, {node.worker for node in nodes})
        started = self._dispatcher.clock()
        own_sum = own.sum_chunks(arrays, pops, at[first:], out=room)
        now_s = self._dispatcher.clock()
        for worker in asked:
            request = requests[worker]
            self._members.ask_to_reduce(worker, request, expected_s=now_s - started, now_s=now_s)
        replies = self._collect()
        found = ChunkedSum([], [])
        for worker, request in requests.items():
            its_chunks, norms = at[request.first : request.last], replies.get(worker)
            if norms is not None and all(map(isfinite, norms)):
                theirs = self._transport.reduced_slice(worker)
                summed = ChunkedSum([theirs[chunk] for chunk in its_chunks], list(norms))
            else:
                summed = own.sum_chunks(arrays, pops, its_chunks, out=room)
                if norms is not None and all(map(isfinite, summed.squared_norms)):
                    wrong = self._members.refute(worker, step, "an invalid sum of a range")
                    self._dispatcher.carry_out(wrong)
            found.chunks.extend(summed.chunks)
            found.squared_norms.extend(summed.squared_norms)
        found.chunks.extend(own_sum.chunks)
        found.squared_norms.extend(own_sum.squared_norms)
        return found

    def _send(self, requests: dict[int, ReduceRequest], sources: set[int]) -> list[int]:
        """Send what can still be sent: by each sending, a worker may be found to be gone."""
        asked = []
        for worker, request in requests.items():
            if self._transport.can_share(sources):
                self._transport.send_reduce(worker, request)
                asked.append(worker)
        return asked

    def _requests(
        self, step: int, nodes: Sequence[PartialRef], num_chunks: int
    ) -> tuple[dict[int, ReduceRequest], int]:
        """A request for each worker that is to help, and where the server's own range begins."""
        workers = sorted({node.worker for node in nodes})
        count = min(len(workers) + 1, self._most_processes, num_chunks)
        cuts = [num_chunks * i // count for i in range(count + 1)]
        requests = {
            worker: ReduceRequest(self._incarnation, step, first, last, tuple(nodes))
            for worker, first, last in zip(workers, cuts, cuts[1:-1], strict=False)
        }
        return requests, cuts[-2]

    def _collect(self) -> dict[int, tuple[float, ...]]:
        """The squared norms that were replied in time, by worker."""
        found: dict[int, tuple[float, ...]] = {}
        for decision in self._dispatcher.decisions():
            if isinstance(decision, Accept):
                assert isinstance(decision.reply, ReduceReply)
                found[decision.worker] = decision.reply.squared_norms
        # One that has replied and died since has taken its memory's descriptor along.
        return {worker: its for worker, its in found.items() if self._transport.can_share([worker])}
