"""How an experiment is shown while it is made: a table that fills; plain lines elsewhere.

Everything goes to standard error.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from distsgd.cli.terminal.messages import can_redraw, console, duration, print_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from distsgd.experiments.plan import Piece
    from distsgd.experiments.whole import Totals

PLAIN_EVERY_S = 10.0
_COLUMNS = {
    "learning": "learning runs",
    "timing": "timed pairs",
    "full": "full runs",
    "branches": "branches",
    "peers": "peers",
}


class FillingTable:
    """Counts the work done of each batch size and stage, of all there is, and how it came out.

    Shown between ``with`` and its end.
    """

    def __init__(
        self, screen: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen, self._clock = screen or console(), clock
        self._began_s = self._said_s = clock()
        self._made: dict[tuple[int, str], dict[str, str]] = defaultdict(dict)
        self._totals: Totals = {}
        self._last = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if can_redraw(self._screen):
            from rich.live import Live

            self._live = Live(console=self._screen, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)

    def message(self, text: str) -> None:
        """Show one message."""
        print_line(self._screen, text)

    def expect(self, totals: Totals) -> None:
        """How many pieces there are, by batch size and stage, where that is known."""
        self._totals = totals

    def note(self, piece: Piece, outcome: str) -> None:
        """A piece is done: it has "reached" its target or "diverged", or neither ("")."""
        self._made[piece.batch, piece.stage][piece.name] = outcome
        self._last = f"{piece.name} {outcome}".strip()
        now_s = self._clock()
        if self._live is not None:
            self._live.update(self._table())
        elif now_s - self._said_s >= PLAIN_EVERY_S:
            self._said_s = now_s
            self.message(f"{duration(now_s - self._began_s)}: {self._in_words()}")

    def _in_words(self) -> str:
        batches = self._batches()
        counts = ((self._count(batches, stage), name) for stage, name in _COLUMNS.items())
        done = "; ".join(f"{name}: {count}" for count, name in counts if count)
        return f"{done}; last {self._last}"

    def _batches(self) -> list[int]:
        return sorted({batch for batch, _ in (*self._made, *self._totals)})

    def _count(self, batches: list[int], stage: str) -> str:
        """Of these batch sizes together: "5 of 13, 3 reached, 1 diverged"."""
        made = [how for batch in batches for how in self._made.get((batch, stage), {}).values()]
        total = sum(self._totals.get((batch, stage), 0) for batch in batches)
        if not made and not total:
            return ""
        of = f" of {total}" if total else ""
        outcomes = (f"{made.count(how)} {how}" for how in ("reached", "diverged") if how in made)
        return ", ".join([f"{len(made)}{of}", *outcomes])

    def _table(self) -> Table:
        from rich.table import Table

        after = duration(self._clock() - self._began_s)
        table = Table(title=f"after {after}: {self._last}", title_justify="left")
        table.add_column("batch", justify="right")
        for name in _COLUMNS.values():
            table.add_column(name, justify="right")
        for batch in self._batches():
            table.add_row(f"{batch:,}", *(self._count([batch], stage) for stage in _COLUMNS))
        return table
