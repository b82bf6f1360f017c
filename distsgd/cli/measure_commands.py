"""The commands ``soak``, ``bench`` and ``doctor`` and their arguments.

What they do stands in modules that are imported when they run.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.completion import complete_config
from distsgd.cli.options import JsonOption, OverridesOption


class Statistics(StrEnum):
    """What is measured besides the loss."""

    NONE = "none"
    NORMS = "norms"


def soak(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml", help="The configuration.", autocompletion=complete_config
        ),
    ],
    *,
    minutes: Annotated[float, typer.Option(min=0.0, help="No run starts after that.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which faults come when.")] = 0,
    rounds: Annotated[int | None, typer.Option(min=1, help="At most so many runs.")] = None,
    faults: Annotated[int | None, typer.Option(min=1, help="No run starts after so many.")] = None,
    one_in: Annotated[int, typer.Option(min=1, help="A fault at one in so many steps.")] = 100,
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Inject random faults into run after run and compare each with a run without faults."""
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


def bench(
    *,
    layers: Annotated[str, typer.Option(help="Sizes of the network, input first.")] = "784,128,10",
    batch: Annotated[int, typer.Option(min=1, help="Rows of one update.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: in this one.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 3.0,
    statistics: Annotated[
        Statistics, typer.Option(help="norms: with per-sample norms, as in a run.")
    ] = Statistics.NORMS,
    overrides: OverridesOption = None,
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


def doctor(*, as_json: JsonOption = False) -> None:
    """Say what this machine can do, what is wrong with it, and how to mend that."""
    from distsgd.cli.doctor import show_doctor  # noqa: PLC0415

    show_doctor(as_json=as_json)
