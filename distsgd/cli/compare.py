"""``experiment compare``: several runs side by side. Reads the runs only."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distsgd.cli.completion import complete_run
from distsgd.cli.options import JsonOption, given_path, given_place
from distsgd.cli.terminal.messages import failures_as_json, print_json, print_table, say

if TYPE_CHECKING:
    from distsgd.experiments.compare import Comparison
    from distsgd.experiments.report.comparison.tables import Line


def compare(
    runs: Annotated[
        list[Any],
        typer.Argument(
            metavar="RUN",
            parser=given_place,
            help="Run directories, or addresses of runs; two or more.",
            autocompletion=complete_run,
        ),
    ],
    *,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help='Also when each met it: "test_accuracy>=0.95" or "test_loss<=0.2".',
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=given_path,
            help="Write compare.html, with pictures, and compare.json there as well.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: settings, bits, learning over samples and seconds, environments."""
    with failures_as_json(as_json):
        from distsgd.experiments import compare as experiments
        from distsgd.experiments.report import comparison as report

        command = shlex.join(["distsgd", *sys.argv[1:]])
        found = experiments.compare(runs, target=target, command=command)
        files = report.write_comparison(found, out) if out is not None else []
        if as_json:
            print_json(report.json_comparison(found))
        else:
            _print(found)
    for file in files:
        say(f"wrote {file}")


def _print(found: Comparison) -> None:
    """The tables on standard output, the sentences below them."""
    from distsgd.experiments.report.comparison import tables
    from distsgd.experiments.report.comparison.sentences import sentences

    labels = [run.label for run in found.runs]
    _print_lines("how they went", labels, tables.results(found))
    _print_lines("settings that differ", labels, tables.settings(found))
    _print_lines("environments that differ", labels, tables.environments(found))
    for one in sentences(found):
        say(one.sentence)


def _print_lines(title: str, labels: Sequence[str], lines: Sequence[Line]) -> None:
    if not lines:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, title=title, title_justify="left")
    table.add_column("", style="bold", no_wrap=True)
    for label in labels:
        table.add_column(label, overflow="fold")
    for line in lines:
        table.add_row(line.name, *map(Text, line.cells))
    print_table(table)
