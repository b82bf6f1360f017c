"""The words on the wire: what the server asks of a worker, and what it answers. Numbers only.

Nothing is ever unpickled.

A `ComputeRequest` names blocks by step and range, since both sides have the sampler; the arrays
travel beside it (see `transport`).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from distsgd.data.sampler import Sampler
from distsgd.nn.model import Model
from distsgd.parallel.tree import Sums

KIND_AT = 4  # Behind the incarnation, in every message.


class RequestKind(IntEnum):
    """What a worker is asked to do."""

    GRADIENT = 1  # Blocks of a step of the training rows: gradient sums, losses, statistics.
    EVALUATE = 2  # Blocks of the test rows: losses and correct answers.
    LOSS = 3  # Blocks of a step of the training rows: losses only.


class ComputeRequest(NamedTuple):
    """Compute blocks ``first`` to ``last`` (excluded) of `step`."""

    incarnation: int  # Of the server; an answer to another one is refused.
    kind: RequestKind
    step: int
    first: int
    last: int
    next_first: (
        int  # The blocks of the following step that this worker may expect; empty when unknown.
    )
    next_last: int
    spin: bool = False  # Look for the next order without falling asleep, for a while.

    def pack(self) -> bytes:
        """The order as bytes."""
        return _ORDER.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The order in `data`, of the right length."""
        incarnation, kind, *rest = _ORDER.unpack(data)
        return cls(incarnation, RequestKind(kind), *rest)


class ComputeReply(NamedTuple):
    """What came of an order.

    A partial for each subtree of the blocks that could be summed, in order.
    """

    incarnation: int
    kind: RequestKind
    step: int
    first: int
    last: int
    read_us: float  # Time for rows that were not yet read when the order came.
    compute_us: float
    nodes: tuple[Sums, ...]

    def pack(self) -> bytes:
        """The report as bytes."""
        head = _REPORT.pack(*self[:7], len(self.nodes))
        return head + b"".join(_SUMS.pack(*node) for node in self.nodes)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The report in `data`.

        Raises:
            ValueError: `data` is too short, or not a report.
        """
        try:
            incarnation, kind, *rest, num_nodes = _REPORT.unpack_from(data)
            head = (incarnation, RequestKind(kind), *rest)
            end = _REPORT.size + num_nodes * _SUMS.size
            starts = range(_REPORT.size, end, _SUMS.size)
            nodes = tuple(Sums(*_SUMS.unpack_from(data, at)) for at in starts)
        except (struct.error, ValueError) as error:
            raise ValueError(f"{len(data)} bytes are no report: {error}") from None
        return cls._make((*head, nodes))

    def answers(self, order: ComputeRequest) -> bool:
        """Is this the report on `order`, and not on an older one?"""
        return self[:5] == order[:5]


class PartialRef(NamedTuple):
    """A partial that is to be summed: in whose slots it lies, and how many joins follow it."""

    worker: int
    slot: int
    pops: int


class ReduceRequest(NamedTuple):
    """Sum chunks ``first`` to ``last`` (excluded) of `nodes`, which lie in workers' slots."""

    incarnation: int
    step: int
    first: int
    last: int
    nodes: tuple[PartialRef, ...]

    def pack(self) -> bytes:
        """The order as bytes."""
        incarnation, *rest = self[:4]
        head = _SUM.pack(incarnation, _OF_SUM, *rest)
        return head + b"".join(_NODE.pack(*node) for node in self.nodes)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The order in `data`, of the right length."""
        incarnation, _, *rest = _SUM.unpack_from(data)
        nodes = tuple(map(PartialRef._make, _NODE.iter_unpack(data[_SUM.size :])))
        return cls._make((incarnation, *rest, nodes))


class ReduceReply(NamedTuple):
    """The chunks ``first`` to ``last`` (excluded) are summed; each one's squared norm."""

    incarnation: int
    step: int
    first: int
    last: int
    squared_norms: tuple[float, ...]

    def pack(self) -> bytes:
        """The report as bytes."""
        incarnation, *rest = self[:4]
        count = len(self.squared_norms)
        return _SUM.pack(incarnation, _OF_SUM, *rest) + struct.pack(
            f"<{count}d", *self.squared_norms
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The report in `data`.

        Raises:
            ValueError: `data` is too short, or not a report.
        """
        try:
            incarnation, _, step, first, last = _SUM.unpack_from(data)
            found = struct.unpack(f"<{last - first}d", data[_SUM.size :])
        except struct.error as error:
            raise ValueError(f"{len(data)} bytes are no report: {error}") from None
        return cls(incarnation, step, first, last, found)

    def answers(self, order: ReduceRequest) -> bool:
        """Is this the report on `order`, and not on an older one?"""
        return self[:4] == order[:4]


def is_of_sum(data: bytes) -> bool:
    """Is `data` a `ReduceRequest` or a `ReduceReply`?"""
    return data[KIND_AT : KIND_AT + 1] == bytes([_OF_SUM])


_OF_SUM = 255  # Where other messages have their kind.
_SUM = struct.Struct("<IBQII")
_NODE = struct.Struct("<III")
_ORDER = struct.Struct("<IBQIIII?")
_REPORT = struct.Struct("<IBQIIffH")
_SUMS = struct.Struct("<qdqdd")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to know to compute any block of a run; the same for every worker."""

    data: Path  # A prepared data set.
    model: Model
    sampler: Sampler
    dtype: str
    seed: int
    per_sample: bool
    has_classes: bool  # Are the labels classes, so that an answer can be right or wrong?


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself before its first gradient."""

    worker: int
    version: str  # Of distsgd.
    pid: int
    probe: str  # What it computes, hashed: see `distsgd.parallel.numerics`.
    data_digest: str

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
        texts = [fields[name] for name in ("version", "probe", "data_digest")]
        is_right = all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
        if not is_right or not all(isinstance(text, str) for text in texts):
            raise ValueError("not a worker's description")
        return cls(**fields)
