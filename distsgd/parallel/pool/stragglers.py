"""Who is late, and what follows from it. No input to the bits.

A late worker's blocks are computed by somebody else.

A block is late when it takes a stated factor longer than blocks have been taking. The straggler has
a pending reply; until it has sent it, it gets no work, and after that it backs off, the longer the
more often it was late. One whose reply is pending for long is killed: a stopped process (SIGSTOP)
holds its connection, and nobody else would ever notice.

A single short delay is the operating system's; a worker that step after step waits for is slow, and
backs off as well. Pure; the time comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median_low

LATE_FACTOR = 4.0
LATE_FLOOR_S = 0.05  # Shorter delays are the operating system's.
SLOW_FLOOR_S = 0.001
SLOW_STEPS = 8  # One after the other: so often it is no chance.
END_AFTER_S = 5.0
SMOOTHING = 0.1
FIRST_BACKOFF_STEPS = 64
LONGEST_BACKOFF_STEPS = 1 << 16
FORGIVEN_AFTER = 16  # Times a rest, worked without being late.


@dataclass(slots=True)
class _Record:
    """What is known of a worker that was late."""

    pending_since_s: float | None = None
    backs_off_until_step: int = 0
    backoff_steps: int = FIRST_BACKOFF_STEPS


@dataclass(slots=True)
class Stragglers:
    """Watches how long blocks take; times are seconds of one clock."""

    _row_s: dict[int, float] = field(default_factory=dict)  # Moving average for each kind of work.
    _records: dict[int, _Record] = field(default_factory=dict)
    _slow: tuple[int | None, int] = (None, 0)  # Whom steps wait for, and how many did so far.

    def took(self, kind: int, num_rows: int, seconds: float) -> None:
        """A worker computed rows in `seconds`, counted from the order."""
        each = seconds / num_rows
        known = self._row_s.get(kind, each)
        self._row_s[kind] = known + SMOOTHING * (each - known)

    def allowed_s(self, kind: int, num_rows: int) -> float | None:
        """How long rows may take before somebody else computes them; None: nothing is known."""
        known = self._row_s.get(kind)
        return None if known is None else max(LATE_FLOOR_S, LATE_FACTOR * known * num_rows)

    def pending_reply(self, worker: int, *, since_s: float) -> None:
        """`worker` was outrun: its report, when it comes, is for nobody."""
        self._records.setdefault(worker, _Record()).pending_since_s = since_s

    def rest(self, worker: int, *, step: int) -> None:
        """Give `worker` no work for some steps, for twice as many each time, but for long ago."""
        record = self._records.setdefault(worker, _Record())
        if step > record.backs_off_until_step + FORGIVEN_AFTER * record.backoff_steps:
            record.backoff_steps = FIRST_BACKOFF_STEPS
        record.backs_off_until_step = step + record.backoff_steps
        record.backoff_steps = min(2 * record.backoff_steps, LONGEST_BACKOFF_STEPS)

    def slow_one(self, seconds: Mapping[int, float]) -> int | None:
        """Whom the last steps waited for, all of them; None where that is nobody, or by chance.

        Args:
            seconds: How long each took that computed the step just made, all about as many rows.
        """
        slowest = max(seconds, key=seconds.__getitem__)
        most_s = seconds[slowest]
        if len(seconds) == 1 or most_s < SLOW_FLOOR_S:
            self._slow = (None, 0)
            return None
        others_s = median_low([its for worker, its in seconds.items() if worker != slowest])
        if most_s < max(SLOW_FLOOR_S + others_s, LATE_FACTOR * others_s):
            self._slow = (None, 0)
            return None
        count = self._slow[1] + 1 if self._slow[0] == slowest else 1
        self._slow = (slowest, count % SLOW_STEPS)
        return slowest if count == SLOW_STEPS else None

    def answered(self, worker: int) -> bool:
        """`worker` has reported; did it owe that?"""
        record = self._records.get(worker)
        if record is None or record.pending_since_s is None:
            return False
        record.pending_since_s = None
        return True

    def forget(self, worker: int) -> None:
        """`worker` is a new process."""
        self._records.pop(worker, None)

    def fit(self, workers: Iterable[int], step: int) -> tuple[int, ...]:
        """Those of `workers` that can be given work at `step`."""
        return tuple(
            worker
            for worker in workers
            if (record := self._records.get(worker)) is None
            or (record.pending_since_s is None and record.backs_off_until_step <= step)
        )

    def overdue(self, now_s: float) -> list[int]:
        """Workers that have owed a report for so long that they should be ended."""
        return [
            worker
            for worker, record in self._records.items()
            if record.pending_since_s is not None and now_s - record.pending_since_s > END_AFTER_S
        ]

    @property
    def is_watching(self) -> bool:
        """Was anybody ever late?"""
        return bool(self._records)
