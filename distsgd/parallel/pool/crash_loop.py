"""Deaths that repeat at the same place end a run, and the place is named.

A lost worker's blocks are computed by the server. Where it is the blocks that kill, the server dies
as well, and the next incarnation would take the same way again: so the blocks are written down
before the server touches them, in a small file in the run directory that is removed when they are
computed. `Deaths.after` counts, and is pure.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distsgd.base.locations import Location
from distsgd.errors import ClusterError, StorageError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.worker import WorkerSpec

MAX_DEATHS = 3
_MOST_ROWS_SHOWN = 8


class Deaths(NamedTuple):
    """How many followed each other at one place: blocks ``first`` to ``last`` (excluded)."""

    kind: int
    step: int
    first: int
    last: int
    deaths: int = 1

    def after(self, known: Deaths | None) -> Deaths:
        """These and those `known` from before, at what their places have in common; else these."""
        if known is None or known[:2] != self[:2]:
            return self
        first, last = max(self.first, known.first), min(self.last, known.last)
        if first >= last:
            return self
        return self._replace(first=first, last=last, deaths=self.deaths + known.deaths)


def _name_plainly(request: ComputeRequest) -> str:
    return f"blocks {request.first} to {request.last - 1} of step {request.step}"


class CrashLoopGuard:
    """Counts deaths on blocks that no process has computed yet; `name` names those of a request.

    Without `remember_in`, deaths count in this process only.
    """

    def __init__(self, name: Callable[[ComputeRequest], str] = _name_plainly) -> None:
        self.name = name
        self._known: Deaths | None = None
        self._path: Path | Location | None = None

    def remember_in(self, path: Path | Location) -> None:
        """Count over incarnations of the server, by the file `path`; it holds the last one's.

        Raises StorageError where it is on object storage, and that refuses.
        """
        self._path, self._known = path, _read(path)
        if self._known is not None:  # The last to touch these blocks was the server before this.
            self._known = self._known._replace(deaths=self._known.deaths + 1)

    def died(self, request: ComputeRequest) -> None:
        """A worker died with `request` in hand, and another process will try it.

        Raises:
            ClusterError: It is the third death on the same blocks; names them.
        """
        self._known = found = Deaths(*map(int, request[1:5])).after(self._known)
        if found.deaths >= MAX_DEATHS:
            self.cleared()
            blocks = self.name(request._replace(first=found.first, last=found.last))
            raise ClusterError(
                f"{found.deaths} processes died one after the other on {blocks}; what is durable "
                "is kept; look at these rows, and at the memory of the nodes"
            )
        if self._path is not None:
            _write(self._path, json.dumps(found._asdict()).encode())

    def cleared(self) -> None:
        """They were computed."""
        self._known = None
        if isinstance(self._path, Path):
            self._path.unlink(missing_ok=True)
        elif self._path is not None:
            with contextlib.suppress(StorageError):  # As below.
                self._path.delete()


def _write(path: Path | Location, data: bytes) -> None:
    if isinstance(path, Path):
        path.touch(mode=0o600)
        path.write_bytes(data)  # No sync: it has to outlive a process, not the machine.
    else:
        with contextlib.suppress(StorageError):  # An outage ends no run: this death is not counted.
            path.write_bytes(data)


def _read(path: Path | Location) -> Deaths | None:
    """What an incarnation that died has left; None where there is nothing that can be used."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = Deaths(**json.loads(path.read_bytes()))
        if all(type(number) is int and number >= 0 for number in found):
            return found
    return None


def namer(spec: WorkerSpec) -> Callable[[ComputeRequest], str]:
    """Names the blocks of a request of the run `spec`: step, and rows of the prepared data."""

    def name(request: ComputeRequest) -> str:
        if request.kind is RequestKind.EVALUATE:
            return f"blocks {request.first} to {request.last - 1} of the test rows"
        sampler = spec.sampler
        blocks = sampler.partition(request.step).blocks[request.first : request.last]
        first, last = blocks[0].first, blocks[-1].last
        numbers = np.empty(last - first, np.int64)
        sampler.row_order().rows_inplace(request.step, first, last, numbers)
        shown = ", ".join(map(str, numbers[:_MOST_ROWS_SHOWN]))
        hidden = len(numbers) - _MOST_ROWS_SHOWN
        more = f" and {hidden} more" if hidden > 0 else ""
        return f"{_name_plainly(request)} (rows {shown}{more} of the prepared data)"

    return name
