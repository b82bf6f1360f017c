"""``scale-to``: another number of workers for a run that trains."""

from typing import Annotated

import typer

from distsgd.cli.options import RunArgument
from distsgd.cli.terminal.messages import say


def scale_to(
    run: RunArgument,
    num_workers: Annotated[int, typer.Argument(metavar="N", help="Worker processes.")],
) -> None:
    """Change the number of workers of a run while it trains."""
    from distsgd.parallel.launch.worker_actors import DesiredWorkers
    from distsgd.store.run_directory import RunDirectory

    before = DesiredWorkers(RunDirectory.open(run).path).ask(num_workers)
    say(f"{run}: workers from now on: {num_workers} (wanted before: {before})")
