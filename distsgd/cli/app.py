"""All commands; their arguments stand in the modules ``*_commands``, what they do beside them.

Nothing heavy is imported here: ``--help`` loads neither ray nor numpy nor pyarrow.
"""

import sys
from typing import Annotated

import typer

from distsgd import __version__
from distsgd.cli.cache_commands import cache_app
from distsgd.cli.data_commands import data_check, data_prepare
from distsgd.cli.draw import draw_app
from distsgd.cli.measure_commands import bench, doctor, soak
from distsgd.cli.run_commands import evaluate, predict, scale_to, show, verify
from distsgd.cli.train_commands import init, train
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
for command in (init, train, evaluate, predict, show, verify, scale_to, soak, bench, doctor):
    app.command()(command)
data_app.command("prepare")(data_prepare)
data_app.command("check")(data_check)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")
app.add_typer(draw_app, name="draw")


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
