"""The commands and their arguments; what they do stands in the modules beside this one.

Nothing heavy is imported here: ``--help`` loads neither ray nor numpy nor pyarrow.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distsgd import __version__
from distsgd.cli.draw import RunArgument, draw_app
from distsgd.errors import DistSGDError

app = typer.Typer(
    name="distsgd",
    help="Distributed data-parallel mini-batch SGD: the same bits for any number of workers.",
    epilog="Exit codes: 0 done, 2 configuration, 3 data, 4 cluster, 5 diverged, 6 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Prepare and check data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(draw_app, name="draw")


class Example(StrEnum):
    """The configurations that are shipped."""

    DIGITS = "digits"


class Resume(StrEnum):
    """What to do with a run directory that holds a run."""

    NEVER = "never"
    AUTO = "auto"


class Standardise(StrEnum):
    """What is taken off each feature and what it is divided by."""

    MEAN_STD = "mean_std"
    MIN_MAX = "min_max"
    NONE = "none"


class LabelKind(StrEnum):
    """Whether labels are classes or numbers."""

    AUTO = "auto"
    CLASS = "class"
    NUMBER = "number"


class DType(StrEnum):
    """The type of all numbers."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


JsonOption = Annotated[
    bool, typer.Option("--json", help="The last line on standard output is one JSON object.")
]


def main() -> None:
    """Run the command line; an error of ours becomes one message and its exit code."""
    try:
        app()
    except DistSGDError as error:
        from distsgd.cli.messages import show_error  # noqa: PLC0415 -- rich, only when needed.

        show_error(error)
        sys.exit(error.exit_code)


def _show_version(asked: bool) -> None:  # noqa: FBT001 -- typer's callback.
    if asked:
        typer.echo(f"distsgd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Distributed data-parallel mini-batch SGD: the same bits for any number of workers."""


@app.command()
def init(
    example: Annotated[Example, typer.Argument(help="Which example.")],
    *,
    directory: Annotated[Path, typer.Option("--dir", help="Where to write it.")] = Path(),
) -> None:
    """Write an example configuration and its data, ready to run and to edit."""
    from distsgd.cli.init import write_example  # noqa: PLC0415

    write_example(example.value, directory)


@app.command()
def train(  # noqa: PLR0913 -- one parameter an option of the command.
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The configuration.")],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key: batch.size=64. Repeatable."
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N|MIN-MAX|auto", help="Worker processes; 0: in this process."),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where the run is kept (made if missing).")
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="auto: go on with what the run directory holds.")
    ] = Resume.NEVER,
    chaos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT", help='Hurt the run: "kill worker every 50 steps". Repeatable.'
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data and show the plan, no more.")
    ] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages, no progress.")] = False,
) -> None:
    """Train the network of a configuration."""
    from distsgd.cli.train import Request, dry_run_of, run  # noqa: PLC0415

    request = Request(
        config, (*(overrides or ()),), workers, run_dir, resume.value, (*(chaos or ()),)
    )
    if dry_run:
        dry_run_of(request, as_json=as_json)
    else:
        run(request, as_json=as_json, quiet=quiet)


@app.command()
def evaluate(
    run: RunArgument,
    *,
    data: Annotated[
        Path | None, typer.Option(help="A file; the run's own test rows unless given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained network on held-out rows."""
    from distsgd.cli.use import show_evaluation  # noqa: PLC0415

    show_evaluation(run, data, as_json=as_json)


@app.command()
def predict(
    run: RunArgument,
    *,
    data: Annotated[Path, typer.Option(help="The rows, without or with labels.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where to write.")],
) -> None:
    """Write what a trained network says of each row."""
    from distsgd.cli.use import write_predictions  # noqa: PLC0415

    write_predictions(run, data, out)


@app.command()
def show(
    run: RunArgument,
    *,
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw how it went into RUN/plots/ as well.")
    ] = False,
) -> None:
    """Show what a run is, how it went and what it left."""
    from distsgd.cli.show import show_run  # noqa: PLC0415

    show_run(run, plots=plots)


@app.command()
def verify(
    run: RunArgument,
    *,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Worker processes; 0: in this process.")
    ] = None,
) -> None:
    """Compute a run again and hold it against its digest chain, with any number of workers."""
    from distsgd.cli.use import show_verification  # noqa: PLC0415

    show_verification(run, workers)


@data_app.command("prepare")
def data_prepare(  # noqa: PLR0913 -- one parameter an option of the command.
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files or globs.")],
    *,
    label: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="What to predict. Repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="The directory to make.")],
    features: Annotated[
        list[str] | None,
        typer.Option("--feature", metavar="COLUMN", help="Every other column unless given."),
    ] = None,
    label_kind: Annotated[LabelKind, typer.Option(help="What labels are.")] = LabelKind.AUTO,
    test_fraction: Annotated[float, typer.Option(min=0.0, help="Of the rows, held out.")] = 0.0,
    standardise: Annotated[Standardise, typer.Option()] = Standardise.MEAN_STD,
    dtype: Annotated[DType, typer.Option()] = DType.FLOAT32,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the order of rows.")] = 0,
) -> None:
    """Check files and turn them into a prepared data set, which training opens at once."""
    from distsgd.cli.data import prepare_directory  # noqa: PLC0415

    prepare_directory(
        sources,
        out,
        choices={
            "label": tuple(label),
            "features": tuple(features) if features else "rest",
            "label_kind": label_kind.value,
            "test_fraction": test_fraction,
            "standardise": standardise.value,
            "dtype": dtype.value,
            "seed": seed,
        },
    )


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="A prepared directory or a file.")],
) -> None:
    """Read all of a file or prepared directory and say what is in it and what is wrong."""
    from distsgd.cli.data import check_path  # noqa: PLC0415

    check_path(path)


@app.command("scale-to")
def scale_to(
    run: RunArgument,
    num_workers: Annotated[int, typer.Argument(metavar="N", help="Worker processes.")],
) -> None:
    """Have another number of workers from now on, while a run trains."""
    from distsgd.cli.measure import show_scaling  # noqa: PLC0415

    show_scaling(run, num_workers)


@app.command()
def soak(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The configuration.")],
    *,
    minutes: Annotated[float, typer.Option(min=0.0, help="No round begins after that.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all faults.")] = 0,
    rounds: Annotated[int | None, typer.Option(min=1, help="At most so many runs.")] = None,
    faults: Annotated[
        int | None, typer.Option(min=1, help="No round begins after so many.")
    ] = None,
    one_in: Annotated[int, typer.Option(min=1, help="A fault at one in so many steps.")] = 100,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for train.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hurt run after run at random, and hold each against the one that nobody hurt."""
    from distsgd.cli.soak import show_soak  # noqa: PLC0415

    show_soak(
        config,
        minutes=minutes,
        seed=seed,
        rounds=rounds,
        faults=faults,
        one_in=one_in,
        overrides=(*(overrides or ()),),
        as_json=as_json,
    )


class Statistics(StrEnum):
    """What is measured besides the loss."""

    NONE = "none"
    NORMS = "norms"


@app.command()
def bench(
    *,
    layers: Annotated[str, typer.Option(help="Sizes, input first.")] = "784,128,10",
    batch: Annotated[int, typer.Option(min=1, help="Rows of one update.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: in this one.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 3.0,
    statistics: Annotated[Statistics, typer.Option(help="norms: as in a run.")] = Statistics.NORMS,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for train.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time steps of a run on synthetic data."""
    from distsgd.cli.measure import show_bench  # noqa: PLC0415

    show_bench(
        layers=layers,
        batch=batch,
        num_workers=workers,
        seconds=seconds,
        statistics=statistics.value,
        overrides=(*(overrides or ()),),
        as_json=as_json,
    )


@app.command()
def doctor(*, as_json: JsonOption = False) -> None:
    """Say what this machine can do, what is wrong with it, and how to mend that."""
    from distsgd.cli.measure import show_doctor  # noqa: PLC0415

    show_doctor(as_json=as_json)
