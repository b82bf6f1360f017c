"""``predict``: a file of rows in, a file of predictions out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from distsgd.cli.options import (
    CacheDirOption,
    CsvOption,
    RunArgument,
    cache_directory,
    given_path,
    given_place,
)
from distsgd.cli.terminal.messages import say
from distsgd.cli.terminal.start_again import open_run
from distsgd.cli.terminal.stop import stoppable
from distsgd.errors import Interrupted


def predict(
    run: RunArgument,
    *,
    data: Annotated[
        Any,
        typer.Option(
            metavar="FILE",
            parser=given_place,
            help="A file of rows or its address, with or without labels.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.parquet", parser=given_path, help="A new file to write."),
    ],
    csv: CsvOption = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Predict each row of a file: one row for each, in the same order, in a new Parquet file."""
    with stoppable(lambda: Interrupted(f"interrupted: {out} was not written")):
        saved = open_run(run, say)
        cache = cache_directory(cache_dir)
        rows = saved.write_predictions(str(data), out, csv=csv or (), cache_dir=cache)
    say(f"wrote {rows:,} rows to {out}")
