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
    from rich.live import Live
    from rich.table import Table

    from distsgd.experiments.plan import Piece

PLAIN_EVERY_S = 10.0
_COLUMNS = {
    "learning": "learning runs",
    "timing": "timed pairs",
    "full": "full runs",
    "branches": "branches",
    "peers": "peers",
}


class FillingTable:
    """Counts the work done of each batch size and stage; shown between ``with`` and its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen, self._clock = console(), clock
        self._began_s = self._said_s = clock()
        self._made: dict[tuple[int, str], set[str]] = defaultdict(set)
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

    def note(self, piece: Piece) -> None:
        """A piece is done."""
        self._made[piece.batch, piece.stage].add(piece.name)
        self._last = piece.name
        now_s = self._clock()
        if self._live is not None:
            self._live.update(self._table())
        elif now_s - self._said_s >= PLAIN_EVERY_S:
            self._said_s = now_s
            self.message(f"{duration(now_s - self._began_s)}: {self._in_words()}")

    def _in_words(self) -> str:
        counts = (
            (sum(len(made) for (_, its), made in self._made.items() if its == stage), name)
            for stage, name in _COLUMNS.items()
        )
        done = ", ".join(f"{count} {name}" for count, name in counts if count)
        return f"{done}; last {self._last}"

    def _table(self) -> Table:
        from rich.table import Table

        after = duration(self._clock() - self._began_s)
        table = Table(title=f"after {after}: {self._last}", title_justify="left")
        table.add_column("batch", justify="right")
        for name in _COLUMNS.values():
            table.add_column(name, justify="right")
        for batch in sorted({batch for batch, _ in self._made}):
            counts = (len(self._made.get((batch, stage), ())) for stage in _COLUMNS)
            table.add_row(f"{batch:,}", *(str(count or "") for count in counts))
        return table
