"""The codec: what the server asks of a worker and what the worker replies, as bytes. Numbers only.

A `ComputeRequest` names blocks by step and range, since both sides have the sampler; the arrays do
not go through here (see `transport`). Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Self


class Sums(NamedTuple):
    """What a partial says besides its gradient sum; float64 and whole numbers."""

    num_samples: int
    loss_sum: float
    correct: int = 0  # Places whose largest output is their class; counted in evaluations only.
    squared_norm_sum: float = 0.0  # Of the per-sample gradients; 0 when they are not asked for.
    squared_norm_max: float = 0.0

    def joined(self, other: Sums) -> Sums:
        """The sums of both sides; `self` is the left one."""
        return Sums(
            self.num_samples + other.num_samples,
            self.loss_sum + other.loss_sum,
            self.correct + other.correct,
            self.squared_norm_sum + other.squared_norm_sum,
            max(self.squared_norm_max, other.squared_norm_max),
        )


class RequestKind(IntEnum):
    """What a worker is asked to do."""

    GRADIENT = 1  # Blocks of a step of the training rows: gradient sums, losses, statistics.
    EVALUATE = 2  # Blocks of the test rows: losses and correct answers.
    LOSS = 3  # Blocks of a step of the training rows: losses only.


class ComputeRequest(NamedTuple):
    """Compute blocks ``first`` to ``last`` (excluded) of `step`."""

    incarnation: int  # Of the server; a reply to another one is refused.
    kind: RequestKind
    step: int
    first: int
    last: int
    next_first: int  # The blocks of the following step that this worker may expect; empty when
    next_last: int  # unknown.
    spin: bool = False  # Look for the next request without falling asleep, for a while.

    def pack(self) -> bytes:
        """The request as bytes."""
        return _REQUEST.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The request in `data`, of the right length."""
        incarnation, kind, *rest = _REQUEST.unpack(data)
        return cls(incarnation, RequestKind(kind), *rest)


class ComputeReply(NamedTuple):
    """What came of a request.

    A partial for each subtree of the blocks that could be summed, in order.
    """

    incarnation: int
    kind: RequestKind
    step: int
    first: int
    last: int
    read_us: float  # Time for rows that were not yet read when the request came.
    compute_us: float
    nodes: tuple[Sums, ...]

    def pack(self) -> bytes:
        """The reply as bytes."""
        head = _REPLY.pack(*self[:7], len(self.nodes))
        return head + b"".join(_SUMS.pack(*node) for node in self.nodes)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The reply in `data`.

        Raises:
            ValueError: `data` is too short, or not a reply.
        """
        try:
            incarnation, kind, *rest, num_nodes = _REPLY.unpack_from(data)
            head = (incarnation, RequestKind(kind), *rest)
            end = _REPLY.size + num_nodes * _SUMS.size
            starts = range(_REPLY.size, end, _SUMS.size)
            nodes = tuple(Sums(*_SUMS.unpack_from(data, at)) for at in starts)
        except (struct.error, ValueError) as error:
            raise ValueError(f"{len(data)} bytes are no reply: {error}") from None
        return cls._make((*head, nodes))

    def answers(self, request: ComputeRequest) -> bool:
        """Is this the reply to `request`, and not to an older one?"""
        return self[:5] == request[:5]


_REQUEST = struct.Struct("<IBQIIII?")
_REPLY = struct.Struct("<IBQIIffH")
_SUMS = struct.Struct("<qdqdd")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself before its first gradient."""

    worker: int
    version: str  # Of distsgd.
    pid: int
    probe: str  # What it computes, hashed: see `distsgd.parallel.numerics`.
    data_digest: str
    host: str  # The name of its node.
    arithmetic: str  # What it computes with, for people.

    def pack(self) -> bytes:
        """As JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The description in `data`.

        Raises:
            ValueError: `data` is not one.
        """
        try:
            fields: Any = json.loads(data)
        except RecursionError:
            raise ValueError("not a worker's description: nested too deeply") from None
        if not isinstance(fields, dict) or set(fields) != set(cls.__slots__):
            raise ValueError("not a worker's description")
        numbers = [fields[name] for name in ("worker", "pid")]
        texts = [value for name, value in fields.items() if name not in ("worker", "pid")]
        is_right = all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
        if not is_right or not all(isinstance(text, str) for text in texts):
            raise ValueError("not a worker's description")
        return cls(**fields)
