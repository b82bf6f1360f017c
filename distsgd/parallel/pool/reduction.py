"""The server's end of the tree: partials of all workers to the sum over the step.

In the loop (`server.step_runner`), `pool.gather` ends here. The workers' slots are read, never
written. Where there is so much to add that one process would take long (many workers, many
parameters), several sum a range of the parameters each, in the order of the tree whichever process
it is, so it is the same bits; what a worker does not give in time is summed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import WorkerError
from distsgd.optim.clip import chunks, keeps_digits, squared_norm
from distsgd.parallel.messages import (
    ComputeReply,
    PartialRef,
    ReduceReply,
    ReduceRequest,
    RequestKind,
    Sums,
)
from distsgd.parallel.numerics import num_cores
from distsgd.parallel.pool.members import Accept, Decision, Members, Recompute
from distsgd.parallel.transport.interface import BufferLayout, SharingTransport
from distsgd.parallel.tree import ChunkedSum, GradientSum, fold, joins

WORTH_IT = 1 << 21  # Numbers to read: a millisecond, where asking others costs a tenth of one.
MOST_CHUNKS = 4096  # A reply with a number for each still is one message.
_NO_GRADIENT = np.zeros(0)


@dataclass(slots=True)
class Root:
    """The sum over a whole step."""

    # [P], in `chunks`. May be workers' slots: read them before the next step, do not write.
    gradient_chunks: list[Array]
    sums: Sums
    squared_norm: float = 0.0  # Of the gradient sum; 0 where losses only were asked for.

    @property
    def gradient_sum(self) -> Array:
        """The whole of it, a copy; shape ``[P]``."""
        return np.concatenate(self.gradient_chunks)

    @property
    def is_finite(self) -> bool:
        """Are the sums and the gradient numbers?"""
        return isfinite(self.sums.loss_sum + self.sums.squared_norm_sum + self.squared_norm)


@dataclass(slots=True)
class Part:
    """One answered request: the reply, and a gradient sum for each of its nodes."""

    worker: int
    reply: ComputeReply
    gradients: Array  # [nodes or more, P]; of no meaning where losses only were asked for.

    @property
    def is_finite(self) -> bool:
        """Are the sums numbers, and the gradients where there are any?"""
        reply = self.reply
        if not all(isfinite(node.loss_sum + node.squared_norm_sum) for node in reply.nodes):
            return False
        if reply.kind is not RequestKind.GRADIENT:
            return True
        return bool(np.isfinite(self.gradients[: len(reply.nodes)]).all())

    def has_shape_of(self, other: Part) -> bool:
        """Has it as many nodes, over as many samples?"""
        own, others = self.reply.nodes, other.reply.nodes
        return [node.num_samples for node in own] == [node.num_samples for node in others]

    def keep(self) -> None:
        """Copy what lies in the worker's slots, since they are about to be used again."""
        self.gradients = self.gradients[: len(self.reply.nodes)].copy()


class SlicedReduce:
    """Asks workers on this node to sum; the server takes a range itself.

    Args:
        transport: How they are asked.
        members: Who was asked what.
        incarnation: Of the server.
        decisions: Waits for the replies; as `carry_out`, the pool's.
        carry_out: Does what is decided.
        clock: Seconds.
    """

    def __init__(
        self,
        transport: SharingTransport,
        members: Members,
        incarnation: int,
        decisions: Callable[[], Iterator[Accept | Recompute]],
        carry_out: Callable[[Sequence[Decision]], object],
        clock: Callable[[], float],
    ) -> None:
        self._transport, self._members, self._incarnation = transport, members, incarnation
        self._decisions, self._carry_out, self._clock = decisions, carry_out, clock
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
        started = self._clock()
        own_sum = own.sum_chunks(arrays, pops, at[first:], out=room)
        now_s = self._clock()
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
                    self._carry_out(wrong)
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
        for decision in self._decisions():
            if isinstance(decision, Accept):
                assert isinstance(decision.reply, ReduceReply)
                found[decision.worker] = decision.reply.squared_norms
        # One that has replied and died since has taken its memory's descriptor along.
        return {worker: its for worker, its in found.items() if self._transport.can_share([worker])}


class Reduction:
    """Continues the tree where the workers stopped; `shared` sums large parts with their help."""

    def __init__(self, layout: BufferLayout, shared: SlicedReduce | None = None) -> None:
        self._layout, self._shared = layout, shared
        self._own = GradientSum(layout.dtype)
        self._room_P: Array = _NO_GRADIENT

    def sum(self, parts: Sequence[Part], edges: tuple[int, ...]) -> Root:
        """The root over `parts`, which stand in block order; `edges` are the blocks' separators.

        Raises:
            WorkerError: A worker's reply does not have the nodes that its blocks give.
        """
        open_edges: tuple[int, ...] = ()
        for part in parts:
            reply = part.reply
            schedule = joins(edges[reply.first : reply.last + 1])
            if len(reply.nodes) != schedule.num_left:
                raise WorkerError(
                    part.worker,
                    reply.step,
                    f"replied with {len(reply.nodes)} partials for blocks {reply.first} to "
                    f"{reply.last}, which give {schedule.num_left}",
                )
            open_edges = (*open_edges[:-1], *schedule.edges)
        pops = joins(open_edges).pops
        root = Root([], _sum_sums([node for part in parts for node in part.reply.nodes], pops))
        if parts[0].reply.kind is RequestKind.GRADIENT:
            self._sum_gradients(root, parts, pops)
        return root

    def _sum_gradients(self, root: Root, parts: Sequence[Part], pops: tuple[int, ...]) -> None:
        """Give `root` the gradient sum of all parts, and its squared norm."""
        slots = [(part, slot) for part in parts for slot in range(len(part.reply.nodes))]
        arrays = [part.gradients[slot] for part, slot in slots]
        nodes = [
            PartialRef(slot[0].worker, slot[1], count)
            for slot, count in zip(slots, pops, strict=True)
        ]
        room_P = self._room() if len(arrays) > 1 else arrays[0]
        if self._shared is not None and self._shared.is_worth_it(nodes, len(room_P)):
            step = parts[0].reply.step
            found = self._shared.sum(step, nodes, self._own, arrays=arrays, room=room_P)
        else:
            found = self._own.sum_chunks(arrays, pops, chunks(len(room_P)), out=room_P)
        root.gradient_chunks, total = found.chunks, 0.0
        for of_chunk in found.squared_norms:  # Not `sum`, which compensates since Python 3.12.
            total += of_chunk
        is_exact = keeps_digits(total, room_P.dtype)
        root.squared_norm = total if is_exact else squared_norm(root.gradient_sum)

    def _room(self) -> Array:
        if not len(self._room_P):
            self._room_P = np.zeros(self._layout.num_parameters, self._layout.dtype)
        return self._room_P


def _sum_sums(nodes: Sequence[Sums], pops: tuple[int, ...]) -> Sums:
    root: Sums
    (root,) = fold(pops, lambda i, _: nodes[i], lambda left, right, _: left.joined(right))
    return root
