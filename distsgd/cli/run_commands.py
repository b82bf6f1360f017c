"""The commands about a run that is there, and their arguments.

What they do stands in modules that are imported when they run.
"""

from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.options import (
    AcceptNumericsOption,
    CacheDirOption,
    CsvOption,
    JsonOption,
    RunArgument,
    given_path,
)


def evaluate(
    run: RunArgument,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=given_path, help="A file; the run's own test rows unless given."
        ),
    ] = None,
    cache_dir: CacheDirOption = None,
    csv: CsvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained network on held-out rows, or on the rows of a file with labels."""
    from distsgd.cli.use import show_evaluation  # noqa: PLC0415

    show_evaluation(run, data, cache_dir, csv=csv or (), as_json=as_json)


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
    from distsgd.cli.use import write_predictions  # noqa: PLC0415

    write_predictions(run, data, out, csv=csv or ())


def show(
    run: RunArgument,
    *,
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw how it went into RUN/plots/ as well.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a run is, how it went and what it left."""
    from distsgd.cli.messages import failures_as_json  # noqa: PLC0415
    from distsgd.cli.show import show_run  # noqa: PLC0415

    with failures_as_json(as_json, run=run):
        show_run(run, plots=plots, as_json=as_json)


def verify(
    run: RunArgument,
    *,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Worker processes; in this process unless given, as with 0."
        ),
    ] = None,
    accept_numerics: AcceptNumericsOption = False,
    cache_dir: CacheDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute a run again and compare weights and history with its digests; with any workers."""
    from distsgd.cli.use import show_verification  # noqa: PLC0415

    show_verification(run, workers, cache_dir, accept_numerics=accept_numerics, as_json=as_json)


def scale_to(
    run: RunArgument,
    num_workers: Annotated[int, typer.Argument(metavar="N", help="Worker processes.")],
) -> None:
    """Change the number of workers of a run while it trains."""
    from distsgd.cli.measure import show_scaling  # noqa: PLC0415

    show_scaling(run, num_workers)
