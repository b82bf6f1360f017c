"""Deaths that repeat at the same place end a run, and the place is named.

A lost worker's blocks are computed by the server. Where it is the blocks that kill, the server dies
as well, and the next incarnation would take the same way again: so the blocks are written down
before the server touches them, in a small file in the run directory that is removed when they are
computed. `CrashLoopGuard` counts and is pure; `SuspectBlocks` has the file and the words.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distsgd.errors import ClusterError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.worker import WorkerSpec

FILE = "suspects.json"
MAX_DEATHS = 3
_MOST_ROWS_SHOWN = 8


class Suspect(NamedTuple):
    """A place where processes die: `kind` of work, and blocks ``first`` to ``last`` (excluded)."""

    kind: int
    step: int
    first: int
    last: int
    deaths: int = 1


class CrashLoopGuard:
    """Counts deaths in a row that have a place in common; `known` are those of before."""

    def __init__(self, known: Suspect | None = None) -> None:
        self._known = known

    def died(self, place: Suspect) -> Suspect:
        """A process died at `place`; which part of it has seen how many deaths by now.

        It is a crash loop where `deaths` reaches `MAX_DEATHS`.
        """
        known = self._known
        if known is not None and known[:2] == place[:2]:
            first, last = max(place.first, known.first), min(place.last, known.last)
            if first < last:
                place = place._replace(first=first, last=last, deaths=known.deaths + 1)
        self._known = place
        return place

    def cleared(self) -> None:
        """The place was passed."""
        self._known = None


def _name_plainly(request: ComputeRequest) -> str:
    return f"blocks {request.first} to {request.last - 1} of step {request.step}"


class SuspectBlocks:
    """Blocks on which processes died before any had computed them.

    `name` names those of a request. Without `remember_in`, deaths count in this process only.
    """

    def __init__(self, name: Callable[[ComputeRequest], str] = _name_plainly) -> None:
        self.name = name
        self._guard = CrashLoopGuard()
        self._path: Path | None = None

    def remember_in(self, path: Path) -> None:
        """Count over incarnations of the server, by the file `path`; it holds the last one's."""
        known = _read(path)
        if known is not None:  # The last to touch these blocks was the server before this one.
            known = known._replace(deaths=known.deaths + 1)
        self._guard, self._path = CrashLoopGuard(known), path

    def died(self, request: ComputeRequest) -> None:
        """A worker died with `request` in hand, and another process will try it.

        Raises:
            ClusterError: It is the third death on the same blocks; names them.
        """
        suspect = self._guard.died(Suspect(*map(int, request[1:5])))
        if suspect.deaths >= MAX_DEATHS:
            self.cleared()
            blocks = self.name(request._replace(first=suspect.first, last=suspect.last))
            raise ClusterError(
                f"{suspect.deaths} processes died one after the other on {blocks}; what is durable "
                "is kept; look at these rows, and at the memory of the nodes"
            )
        if self._path is not None:
            self._path.touch(mode=0o600)
            # No sync: it has to outlive a process, not the machine.
            self._path.write_text(json.dumps(suspect._asdict()))

    def cleared(self) -> None:
        """They were computed."""
        self._guard.cleared()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _read(path: Path) -> Suspect | None:
    """What an incarnation that died has left; None where there is nothing that can be used."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        suspect = Suspect(**json.loads(path.read_bytes()))
        if all(type(number) is int and number >= 0 for number in suspect):
            return suspect
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
