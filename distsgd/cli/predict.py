"""``predict``: a file of rows in, a file of predictions out."""

from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.options import CsvOption, RunArgument, given_path
from distsgd.cli.terminal.messages import say
from distsgd.cli.terminal.start_again import compute_as
from distsgd.cli.terminal.stop import stoppable
from distsgd.errors import Interrupted


def predict(
    run: RunArgument,
    *,
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE", parser=given_path, help="A file of rows, with or without labels."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.parquet", parser=given_path, help="A new file to write."),
    ],
    csv: CsvOption = None,
) -> None:
    """Predict each row of a file: one row for each, in the same order, in a new Parquet file."""
    with stoppable(lambda: Interrupted(f"interrupted: {out} was not written")):
        from distsgd.run.run import Run

        saved = Run.open(run)
        compute_as(saved.config.train.numerics)
        rows = saved.write_predictions(data, out, csv=csv or ())
    say(f"wrote {rows:,} rows to {out}")
