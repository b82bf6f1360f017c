"""Blocks on which processes died before anybody had computed them.

A lost worker's blocks are computed by the server. Where it is the blocks that kill, the server dies
as well, and the next incarnation would go the same way again: so the blocks are written down before
the server touches them. Three deaths, and the run ends and names them. A small file in the run
directory, written when a worker dies with blocks in hand and removed when they are computed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from distsgd.errors import ClusterError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.worker import WorkerSpec

FILE = "suspects.json"
MAX_DEATHS = 3
_MOST_ROWS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Suspect:
    """Blocks ``first`` to ``last`` (excluded), and how many processes died on them."""

    kind: int
    step: int
    first: int
    last: int
    deaths: int


def _name_plainly(order: ComputeRequest) -> str:
    return f"blocks {order.first} to {order.last - 1} of step {order.step}"


class CrashLoopGuard:
    """Counts deaths, also over incarnations of the server.

    Args:
        path: Where to remember; None: only in this process.
        name: What to call the blocks of an order.
    """

    def __init__(
        self, path: Path | None = None, name: Callable[[ComputeRequest], str] = _name_plainly
    ) -> None:
        self._path, self.name = path, name
        self._suspect = _read(path) if path else None
        if self._suspect is not None:  # The last one to touch them was the server before this one.
            self._suspect = replace(self._suspect, deaths=self._suspect.deaths + 1)

    def died(self, order: ComputeRequest) -> None:
        """A worker died with `order` in hand, and somebody else will try it.

        Raises:
            ClusterError: It is the third death on the same blocks; names them.
        """
        known, deaths = self._suspect, 1
        first, last = order.first, order.last
        if known is not None and (known.kind, known.step) == (order.kind, order.step):
            both_first, both_last = max(first, known.first), min(last, known.last)
            if both_first < both_last:
                first, last, deaths = both_first, both_last, known.deaths + 1
        self._suspect = _Suspect(int(order.kind), order.step, first, last, deaths)
        if deaths >= MAX_DEATHS:
            self.cleared()
            raise ClusterError(
                f"{deaths} processes died one after the other on "
                f"{self.name(order._replace(first=first, last=last))}; what is durable is kept; "
                "look at these rows, and at the memory of the nodes"
            )
        if self._path is not None:
            self._path.touch(mode=0o600)
            # No sync: it has to outlive a process, not the machine.
            self._path.write_text(json.dumps(asdict(self._suspect)))

    def cleared(self) -> None:
        """Somebody has computed them."""
        self._suspect = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _read(path: Path) -> _Suspect | None:
    """What an incarnation that died has left; None where there is nothing that can be used."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        suspect = _Suspect(**json.loads(path.read_bytes()))
        if all(type(value) is int and value >= 0 for value in asdict(suspect).values()):
            return suspect
    return None


def namer(spec: WorkerSpec) -> Callable[[ComputeRequest], str]:
    """Names the blocks of an order of the run `spec`: step, and rows of the prepared data."""

    def name(order: ComputeRequest) -> str:
        if order.kind is RequestKind.EVALUATE:
            return f"blocks {order.first} to {order.last - 1} of the test rows"
        sampler = spec.sampler
        blocks = sampler.partition(order.step).blocks[order.first : order.last]
        first, last = blocks[0].first, blocks[-1].last
        numbers = np.empty(last - first, np.int64)
        sampler.row_order().rows_inplace(order.step, first, last, numbers)
        shown = ", ".join(map(str, numbers[:_MOST_ROWS_SHOWN]))
        hidden = len(numbers) - _MOST_ROWS_SHOWN
        more = f" and {hidden} more" if hidden > 0 else ""
        return f"{_name_plainly(order)} (rows {shown}{more} of the prepared data)"

    return name
