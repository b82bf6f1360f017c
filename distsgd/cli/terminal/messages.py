"""What is said, and where: messages on standard error, results on standard output."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distsgd.errors import ConfigError, DistSGDError, Interrupted

if TYPE_CHECKING:  # Loaded when something is printed.
    from rich.console import Console
    from rich.table import Table

_UNCUT_WIDTH = 10_000  # Of what goes to a file or a program: paths stay whole.
_PRINTED = "_is_printed_as_json"  # On an error: a line of its own says all about it.
_LARGE, _LARGE_COUNT = 1e6, 1e12  # From here on the power of ten says more.


def console() -> Console:
    """Standard error, as it is now (tests exchange it); no control codes where none are wanted."""
    from rich.console import Console

    if os.environ.get("NO_COLOR"):
        return Console(stderr=True, highlight=False, soft_wrap=True, color_system=None)
    return Console(stderr=True, highlight=False, soft_wrap=True)


def can_redraw(screen: Console) -> bool:
    """Whether lines on `screen` may be drawn again: on a terminal that understands it."""
    is_dumb = screen.is_dumb_terminal or not os.environ.get("TERM")
    return screen.is_terminal and not is_dumb and not os.environ.get("NO_COLOR")


def command_line(*words: str | Path) -> str:
    """A command of ours that a message advises, as a shell takes it.

    >>> command_line("show", "my run")
    "distsgd show 'my run'"
    """
    return shlex.join(["distsgd", *map(str, words)])


def say(text: str) -> None:
    """One message on standard error."""
    print_line(console(), text)


def print_line(screen: Console, text: str) -> None:
    """A message on `screen` as it is: brackets are no markup."""
    from rich.text import Text

    screen.print(Text(text))


def show_error(error: DistSGDError) -> None:
    """One clear message: a heading for each problem, no traceback."""
    from rich.text import Text

    lines = error.problems if isinstance(error, ConfigError) else (str(error),)
    heading = "" if isinstance(error, Interrupted) else "error: "  # That was asked for.
    for line in lines:
        console().print(Text.assemble((heading, "bold red"), line))


def print_json(values: Mapping[str, Any]) -> None:
    """One object on one line of standard output; numbers that JSON has no word for become null."""
    print(json.dumps(_finite(values), default=str, allow_nan=False), flush=True)  # noqa: T201


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def failures_as_json(as_json: bool, **values: Any) -> Iterator[None]:  # noqa: FBT001 -- the option.
    """With ``--json`` an error inside is also the object of the last line, with `values`."""
    try:
        yield
    except DistSGDError as error:
        if as_json:
            print_failure(error, values)
        raise


def print_failure(error: DistSGDError, values: Mapping[str, Any] | None = None) -> None:
    """An error as the object of ``--json``, with `values`; printed once."""
    if getattr(error, _PRINTED, False):
        return
    setattr(error, _PRINTED, True)
    status = "interrupted" if isinstance(error, Interrupted) else "failed"
    told = {"error": str(error), "exit_code": error.exit_code}
    print_json({"status": status, **(values or {}), **told})


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns on standard output."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    print_table(table)


def print_table(table: Table) -> None:
    """A table on standard output; its lines are cut or folded to fit a terminal only."""
    from rich.console import Console

    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = _UNCUT_WIDTH
    with screen.capture() as drawn:
        screen.print(table)
    lines = [line.rstrip() for line in drawn.get().splitlines()]
    print("\n".join(lines), flush=True)  # noqa: T201 -- the result, before what is said next.


def number(value: float | None, digits: int = 4) -> str:
    """A number for people; a dash for none; the power of ten where places would not show it.

    >>> number(0.12345), number(1234567.0, 0), number(None), number(12345678)
    ('0.1235', '1,234,567', '-', '12,345,678')
    >>> number(1.5e30), number(0.0000012), number(0.0), number(1e20, 0)
    ('1.5e+30', '1.2e-06', '0.0000', '1e+20')
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    is_small = 0.0 < abs(value) < 0.5 * 10.0**-digits and digits > 0
    is_large = abs(value) >= (_LARGE if digits else _LARGE_COUNT)
    return f"{value:.4g}" if is_small or is_large else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """A time for people.

    >>> duration(4.2), duration(200), duration(7300), duration(None)
    ('4.2 s', '3 min 20 s', '2 h 01 min', '-')
    """
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def memory(num_bytes: float) -> str:
    """A size for people.

    >>> memory(999), memory(2_500_000)
    ('999 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
