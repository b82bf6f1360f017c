"""Arguments and options that several commands take; how a group of options becomes parameters."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from distsgd.base.locations import Location, place_of
from distsgd.cli.completion import complete_config, complete_run


def given_place(typed: str) -> Path | Location:
    """What was typed, as a path or an address; an empty one (a shell's variable) is refused."""
    if not typed:
        raise typer.BadParameter("it is empty; must be a path")
    return place_of(typed)


def given_path(typed: str) -> Path:
    """The same, of this machine."""
    place = given_place(typed)
    if isinstance(place, Location):
        raise typer.BadParameter(f"{place} is an address; must be a path of this machine")
    return place


def run_argument(parser: Callable[[str], Any], meaning: str) -> Any:
    """The argument that names a run."""
    return typer.Argument(metavar="RUN", parser=parser, help=meaning, autocompletion=complete_run)


RunArgument = Annotated[Any, run_argument(given_place, "A run directory, or the address of a run.")]
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
    Any,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        parser=given_place,
        help="Where the run is kept, a directory or s3://BUCKET/NAME; a new directory in runs/ "
        "unless given.",
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
        help="Where prepared and fetched data are kept; distsgd in $XDG_CACHE_HOME or ~/.cache "
        "unless given.",
    ),
]
CachePlaceOption = Annotated[
    Any,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        parser=given_place,
        help="Where prepared and fetched data are kept; distsgd in $XDG_CACHE_HOME or ~/.cache "
        "unless given. s3://BUCKET/NAME keeps prepared data for all nodes.",
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
WorkersOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|MIN-MAX|auto",
        help="Worker processes; 0: in this process; auto: one a core. As the configuration says "
        "unless given.",
    ),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: batch.size=64. Repeatable."),
]


def cache_place(named: Path | Location | None) -> Path | str:
    """The cache of this command: as named, else in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    return named.address if isinstance(named, Location) else cache_directory(named)


def cache_directory(named: Path | None) -> Path:
    """The same, of this machine."""
    from distsgd.data.options import default_cache_dir

    return (named or default_cache_dir(os.environ.get("XDG_CACHE_HOME"))).expanduser()


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer reads it: a parameter that is a dataclass becomes one option a field.

    An option is then written once, with its type, default and help, however many there are; the
    command gets the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _options_of(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @functools.wraps(command)
    def flat(**typed: Any) -> None:
        for name, group in groups.items():
            values = {field.name: typed.pop(field.name) for field in fields(group)}
            typed[name] = group(**values)
        command(**typed)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


def _options_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _default(field: "Field[Any]") -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
