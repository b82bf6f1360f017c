"""``verify``: a run computed again and compared with its digests."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distsgd.base.locations import Location
from distsgd.cli.options import (
    AcceptNumericsOption,
    CachePlaceOption,
    JsonOption,
    RunArgument,
    cache_place,
)
from distsgd.cli.terminal.messages import print_facts, print_failure, print_json
from distsgd.cli.terminal.progress import Reporter, reporter
from distsgd.cli.terminal.start_again import open_run
from distsgd.cli.terminal.stop import StopSignals, stoppable
from distsgd.errors import ConfigError, DistSGDError, Interrupted, VerificationError

if TYPE_CHECKING:
    from distsgd.run.progress import Progress
    from distsgd.run.verify import Verification


def verify(
    run: RunArgument,
    *,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Worker processes; in this process unless given, as with 0."
        ),
    ] = None,
    accept_numerics: AcceptNumericsOption = False,
    cache_dir: CachePlaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute a run again and compare weights and history with its digests; with any workers."""
    try:
        unsaid = f"interrupted before {run} was computed again; nothing was found out about it"
        with stoppable(lambda: Interrupted(unsaid)):
            held = _verified(run, workers, cache_dir, accept_numerics=accept_numerics)
    except DistSGDError as error:
        if as_json:
            print_failure(error, _unverified(run, error))
        raise
    if as_json:
        print_json({"run": run, "status": "verified", "first_wrong_step": None, **asdict(held)})
        return
    what = f"history, weights and {held.digests:,} digests over {held.steps:,} steps hold"
    print_facts([("verified", what)])


def _verified(
    run: Path, workers: str | None, cache_dir: Path | Location | None, *, accept_numerics: bool
) -> Verification:
    if workers is not None and not (workers.isascii() and workers.isdigit()):
        raise ConfigError([f"--workers is {workers}; must be 0 or more (0: in this process)"])
    replay = _StoppableReplay(reporter(quiet=False))
    with replay.signals, replay.shown:
        saved = open_run(run, replay.shown.message)
        return saved.verify(
            num_workers=0 if workers is None else int(workers),
            accept_numerics=accept_numerics,
            on_message=replay.shown.message,
            on_progress=replay.look,
            stop=replay.stop,
            cache_dir=cache_place(cache_dir),
        )


class _StoppableReplay:
    """A replay is shown, and asked to stop once its steps have begun."""

    def __init__(self, shown: Reporter) -> None:
        self.shown, self.stop = shown, threading.Event()
        self._has_begun = False
        self.signals = StopSignals(self._request_stop, shown.message, kept="")

    def look(self, now: Progress) -> None:
        self._has_begun = True
        self.signals.keep()
        self.shown.progress(now)

    def _request_stop(self) -> bool:
        self.stop.set()
        return self._has_begun


def _unverified(run: Path, error: DistSGDError) -> dict[str, object]:
    """The object of ``--json`` where there is no "verified"; only one status is a verdict."""
    status = "interrupted" if isinstance(error, Interrupted) else "failed"
    step = error.step if isinstance(error, VerificationError) else None
    status = status if step is None else "wrong"
    values = {"run": run, "status": status, "first_wrong_step": step}
    return values | {"steps": None, "digests": None}
