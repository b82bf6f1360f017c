"""The commands ``init`` and ``train`` and their arguments.

What they do stands in modules that are imported when they run.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.options import (
    AcceptNumericsOption,
    CacheDirOption,
    ConfigArgument,
    JsonOption,
    OverridesOption,
    RunDirOption,
    given_path,
)


class Example(StrEnum):
    """The configurations that are shipped."""

    DIGITS = "digits"


class Resume(StrEnum):
    """What to do with a run directory that holds a run."""

    NEVER = "never"
    AUTO = "auto"


def init(
    example: Annotated[Example, typer.Argument(help="Which example.")],
    *,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", parser=given_path, help="Where to write it.")
    ] = Path(),
) -> None:
    """Write an example configuration and its data, ready to run and to edit."""
    from distsgd.cli.init import write_example  # noqa: PLC0415

    write_example(example.value, directory)


def train(  # noqa: PLR0913 -- one parameter an option of the command.
    config: ConfigArgument,
    *,
    overrides: OverridesOption = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN-MAX|auto",
            help="Worker processes; 0: in this process; auto: one a core. As the "
            "configuration says unless given.",
        ),
    ] = None,
    run_dir: RunDirOption = None,
    resume: Annotated[
        Resume,
        typer.Option(
            help="auto: continue the run in --run-dir, or unless given the newest in runs/ of this "
            "configuration, from its last checkpoint; start one where there is none."
        ),
    ] = Resume.NEVER,
    accept_numerics: AcceptNumericsOption = False,
    cache_dir: CacheDirOption = None,
    chaos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT",
            help='Inject a fault: "kill worker every 50 steps". Repeatable.',
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data and show the plan, no more.")
    ] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages, no progress.")] = False,
) -> None:
    """Train the network of a configuration.

    Ctrl-C ends it after the present step with a checkpoint, a second one at once; exit code 6.
    """
    from distsgd.cli.train import Request, dry_run_of, run  # noqa: PLC0415

    request = Request(
        config,
        (*(overrides or ()),),
        workers,
        run_dir,
        resume.value,
        (*(chaos or ()),),
        accept_numerics,
        cache_dir,
        as_json,
        quiet,
    )
    (dry_run_of if dry_run else run)(request)
