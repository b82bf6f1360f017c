"""When a server's deaths are a crash loop. Pure; no I/O here.

Deaths for which the step is to blame repeat at one step; others do not. Which step it was is not
known: a server is looked at now and then, and dies some steps after the last look. So a death lies
in a range, from the step seen last up to as many steps on as were ever made between two looks (any
number, while no server was looked at twice). Deaths that followed each other count together as long
as one step lies in the ranges of all.

What a checkpoint keeps is no part of it: a server that redoes a stretch may die anywhere in it
without a loop, and one that dies at one step may have saved a little more each time.
"""

from __future__ import annotations

import math


class ServerDeaths:
    """Counts the deaths of a run's servers at one place.

    Attributes:
        count: Deaths that followed each other and may have been at one step.
    """

    def __init__(self) -> None:
        self.count = 0
        # The steps that all of them may have been at; -1: before the first was seen.
        self._first, self._last = -1, -1.0
        self._seen: int | None = None
        self._most_between = math.inf  # Steps made between two looks; infinite: not known yet.

    def looked(self, step: int) -> None:
        """The present server, which trains, has made `step` updates."""
        if self._seen is not None:
            between, known = step - self._seen, self._most_between
            self._most_between = max(between, known) if math.isfinite(known) else between
        self._seen = step

    def died(self, *, counts: bool = True) -> None:
        """The present server died, and another follows; by its step only where it `counts`."""
        seen, self._seen = self._seen, None
        if not counts:
            return
        # One that was never seen training may have died where those before it did.
        first, last = (
            (self._first, self._last) if seen is None else (seen, seen + self._most_between)
        )
        common = max(first, self._first), min(last, self._last)
        if self.count and common[0] <= common[1]:
            self._first, self._last = common
            self.count += 1
        else:
            self._first, self._last, self.count = first, last, 1

    def place(self) -> str:
        """Where they were, in words."""
        return f"before step {self._first + 1}" if self._first >= 0 else "while it started"
