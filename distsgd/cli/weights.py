"""``weights``: those of a run as a file that the library of its model loads."""

from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.options import RunArgument, given_path
from distsgd.cli.terminal.messages import say
from distsgd.cli.terminal.start_again import open_run


def weights(
    run: RunArgument,
    *,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.safetensors", parser=given_path, help="A new file to write."),
    ],
) -> None:
    """Write the weights of a run to a file: of a PyTorch module as load_state_dict takes them."""
    count = open_run(run, say).save_weights(out)
    say(f"wrote {count:,} arrays to {out}")
