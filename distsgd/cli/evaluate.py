"""``evaluate``: loss and accuracy of a trained network."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from distsgd.cli.options import (
    CachePlaceOption,
    CsvOption,
    JsonOption,
    RunArgument,
    cache_place,
    given_place,
)
from distsgd.cli.terminal.messages import failures_as_json, number, print_facts, print_json, say
from distsgd.cli.terminal.start_again import open_run
from distsgd.cli.terminal.stop import stoppable


def evaluate(
    run: RunArgument,
    *,
    data: Annotated[
        Any,
        typer.Option(
            metavar="FILE",
            parser=given_place,
            help="A file or its address; the run's own test rows unless given.",
        ),
    ] = None,
    cache_dir: CachePlaceOption = None,
    csv: CsvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained network on held-out rows, or on the rows of a file with labels."""
    with failures_as_json(as_json), stoppable():
        saved = open_run(run, say)
        files = None if data is None else str(data)
        found = saved.evaluate(files, cache_dir=cache_place(cache_dir), csv=csv or ())
    if as_json:
        print_json(asdict(found))
        return
    print_facts(
        [
            ("rows", f"{found.rows:,}"),
            ("test loss", number(found.test_loss)),
            ("test accuracy", number(found.test_accuracy)),
        ]
    )
