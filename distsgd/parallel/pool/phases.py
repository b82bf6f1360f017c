"""Where the time of a step goes. Pure; the times come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distsgd.parallel.messages import ComputeReply


@dataclass(slots=True)
class Phases:
    """Where the time of all steps so far went, in seconds; each step's add up to its own.

    Attributes:
        read: Rows that were not read ahead, in the slowest process of each step.
        compute: Blocks, in the same process.
        signal: What sending, waking and receiving took beyond that.
        reduce: Summing what the workers left unsummed.
        idle: What the other processes waited for the slowest, on average; not part of the sum.
    """

    read: float = 0.0
    compute: float = 0.0
    signal: float = 0.0
    reduce: float = 0.0
    idle: float = 0.0

    def add(self, reports: Sequence[ComputeReply], *, gather_s: float, reduce_s: float) -> None:
        """Take in one step."""
        if len(reports) == 1:
            slowest = reports[0]
            busy_s = (slowest.read_us + slowest.compute_us) * 1e-6
        else:
            times = [report.read_us + report.compute_us for report in reports]
            slowest = reports[times.index(max(times))]
            busy_s = max(times) * 1e-6
            self.idle += busy_s - sum(times) * 1e-6 / len(times)
        self.read += slowest.read_us * 1e-6
        self.compute += slowest.compute_us * 1e-6
        self.signal += gather_s - busy_s
        self.reduce += reduce_s
