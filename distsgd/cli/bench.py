"""``bench``: the time of a step, on synthetic data."""

from typing import Annotated, Literal

import typer

from distsgd.cli.options import JsonOption, OverridesOption
from distsgd.cli.terminal.messages import print_json, say
from distsgd.cli.terminal.start_again import compute_as
from distsgd.errors import ConfigError


def bench(
    *,
    layers: Annotated[str, typer.Option(help="Sizes of the network, input first.")] = "784,128,10",
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="A model of your own instead, from the first to the last of --layers.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows of one update.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: in this process.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds to measure.")] = 3.0,
    statistics: Annotated[
        Literal["none", "norms"], typer.Option(help="norms: with per-sample norms, as in a run.")
    ] = "norms",
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time steps of a run on synthetic data."""
    from distsgd.lab.bench import Bench, describe, run_bench

    try:
        sizes = tuple(int(size) for size in layers.split(","))
    except ValueError:
        raise ConfigError(
            [f"--layers is {layers}; must be sizes with commas, as 784,128,10"]
        ) from None
    changes = (*(overrides or ()),)
    measured = Bench(sizes, batch, workers, seconds, statistics, changes, factory=factory)
    compute_as(measured.config())
    found = run_bench(measured)
    if as_json:
        print_json(found)
    else:
        describe(measured, found, say)
