"""What is shown of an experiment while it is made: how much of how much, and how it came out."""

from __future__ import annotations

import io

from rich.console import Console

from distsgd.cli.terminal.filling_table import PLAIN_EVERY_S, FillingTable
from distsgd.experiments.plan import Piece

TOTALS = {
    (4, "learning"): 3,
    (240, "learning"): 3,
    (4, "timing"): 5,
    (240, "timing"): 5,
    (4, "peers"): 0,
}


def shown(*, is_terminal: bool) -> str:
    """Of an experiment with four of six learning runs, one of them trained in two parts."""
    now_s = 0.0
    screen = Console(file=io.StringIO(), width=160, force_terminal=is_terminal)
    table = FillingTable(screen, clock=lambda: now_s)
    with table:
        table.expect(TOTALS)
        table.note(Piece("learning", 4, "a"), "")
        table.note(Piece("learning", 4, "a"), "reached")
        table.note(Piece("learning", 4, "b"), "diverged")
        table.note(Piece("learning", 240, "c"), "reached")
        now_s = PLAIN_EVERY_S
        table.note(Piece("full", 240, "d"), "reached")
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_plain_lines_tell_how_much_is_made_of_how_much() -> None:
    assert shown(is_terminal=False) == (
        "10 s: learning runs: 3 of 6, 2 reached, 1 diverged; timed pairs: 0 of 10; "
        "full runs: 1, 1 reached; last d reached\n"
    )


def test_the_table_tells_it_of_each_batch_size() -> None:
    text = shown(is_terminal=True)
    for cell in ("2 of 3, 1 reached, 1 diverged", "1 of 3, 1 reached", "0 of 5", "1, 1 reached"):
        assert cell in text
