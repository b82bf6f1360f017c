"""The commands composed, and how all of them end: one message and an exit code.

Nothing heavy is imported here: ``--help`` loads neither ray nor numpy nor pyarrow.
"""

import difflib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from distsgd import __version__
from distsgd.cli.bench import bench
from distsgd.cli.cache import cache_app
from distsgd.cli.control import scale_to, status, stop
from distsgd.cli.data import data_app
from distsgd.cli.doctor import doctor
from distsgd.cli.draw import draw_app
from distsgd.cli.evaluate import evaluate
from distsgd.cli.experiment import experiment_app
from distsgd.cli.init import init
from distsgd.cli.job import job_app
from distsgd.cli.predict import predict
from distsgd.cli.show import show
from distsgd.cli.soak import soak
from distsgd.cli.terminal.messages import print_failure, say, show_error
from distsgd.cli.terminal.stop import signals_interrupt, stoppable
from distsgd.cli.terminal.streams import lasting_streams
from distsgd.cli.train import train
from distsgd.cli.verify import verify
from distsgd.cli.weights import weights
from distsgd.errors import ClusterError, DistSGDError


class Commands(TyperGroup):
    """All commands; each ends on Ctrl-C, SIGTERM and SIGHUP with a message and exit code 6."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with stoppable(), signals_interrupt():
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                error.message += near_choice(error.message)
                raise


def near_choice(message: str) -> str:
    """What a wrong value of an option that has a few was probably meant to be; "" for others.

    >>> near_choice("'atuo' is not one of 'never', 'auto'.")
    " Did you mean 'auto'?"
    """
    found = re.search(r"'([^']*)' is not one of (.*)", message)
    words = re.findall(r"'([^']*)'", found[2]) if found else []
    near = difflib.get_close_matches(found[1].lower(), words, n=1) if found else []
    return f" Did you mean '{near[0]}'?" if near else ""


app = typer.Typer(
    name="distsgd",
    cls=Commands,
    help="Distributed data-parallel mini-batch SGD: the same bits for any number of workers.",
    epilog="Exit codes: 0 done, 2 configuration, 3 data, 4 cluster or resources, 5 diverged, "
    "6 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(init, train, status, scale_to, stop, evaluate, predict, weights, show, verify),
    *(soak, bench, doctor),
):
    app.command()(command)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")
app.add_typer(draw_app, name="draw")
app.add_typer(job_app, name="job")
app.add_typer(experiment_app, name="experiment")


def main() -> None:
    """Run the command line; an error of ours becomes one message and its exit code."""
    warnings.showwarning = _show_warning
    with errors_shown(), lasting_streams(), errors_shown():
        app()


@contextmanager
def errors_shown() -> Iterator[None]:
    """An error of ours inside becomes one message and its exit code."""
    try:
        yield
    except MemoryError as error:
        no_memory = f"there is not enough memory here for this ({error or 'no more is given'})"
        _end(ClusterError(no_memory))
    except DistSGDError as error:
        _end(error)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """What `warnings.warn` says, as any other warning: of code that a configuration names."""
    say(f"warning: {message}")


def _end(error: DistSGDError) -> NoReturn:
    show_error(error)
    if "--json" in sys.argv[1:]:  # Perhaps before its command had read what was typed.
        print_failure(error)
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
