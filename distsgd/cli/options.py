"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.completion import complete_config, complete_run


def given_path(typed: str) -> Path:
    """What was typed, as a path; an empty one (a shell's variable that is not set) is refused."""
    if not typed:
        raise typer.BadParameter("it is empty; must be a path")
    return Path(typed)


RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", parser=given_path, help="A run directory.", autocompletion=complete_run
    ),
]
ConfigArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG.toml",
        parser=given_path,
        help="The configuration; or RUN/config.json, as a run has recorded it.",
        autocompletion=complete_config,
    ),
]
RunDirOption = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        parser=given_path,
        help="Where the run is kept; a new directory in runs/ unless given.",
        autocompletion=complete_run,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="The last line on standard output is one JSON object.")
]
AcceptNumericsOption = Annotated[
    bool,
    typer.Option(
        "--accept-numerics", help="Continue although this machine computes other bits; says so."
    ),
]
CacheDirOption = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        parser=given_path,
        help="Where prepared data are kept; distsgd in $XDG_CACHE_HOME or ~/.cache unless given.",
    ),
]
CsvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--csv",
        metavar="FIELD=VALUE",
        help="How CSV files are written: separator, encoding, decimal, null_values. Repeatable.",
    ),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: batch.size=64. Repeatable."),
]
