"""The commands that use a run: ``evaluate``, ``predict`` and ``verify``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from distsgd.cli.cache import cache_directory
from distsgd.cli.messages import (
    failures_as_json,
    number,
    print_facts,
    print_failure,
    print_json,
    say,
)
from distsgd.cli.progress import Reporter, reporter
from distsgd.cli.stop import StopSignals, stoppable
from distsgd.errors import ConfigError, DistSGDError, Interrupted, VerificationError
from distsgd.run.evaluate import evaluate, predict
from distsgd.run.verify import Verification, verify

if TYPE_CHECKING:
    from distsgd.run.progress import Progress


def show_evaluation(
    run: Path, data: Path | None, cache_dir: Path | None, *, csv: Sequence[str], as_json: bool
) -> None:
    """Print loss and accuracy on `data`, or on the run's own test rows."""
    with failures_as_json(as_json), stoppable():
        found = evaluate(run, data, cache_dir=cache_directory(cache_dir), csv=csv)
    if as_json:
        print_json(asdict(found))
        return
    print_facts(
        [
            ("rows", f"{found.rows:,}"),
            ("test loss", number(found.test_loss)),
            ("test accuracy", number(found.test_accuracy)),
        ]
    )


def write_predictions(run: Path, data: Path, out: Path, *, csv: Sequence[str]) -> None:
    """Write one row of predictions for each row of `data`."""
    with stoppable(lambda: Interrupted(f"interrupted: {out} was not written")):
        rows = predict(run, data, out, csv=csv)
    say(f"wrote {rows:,} rows to {out}")


def show_verification(
    run: Path,
    workers: str | None,
    cache_dir: Path | None,
    *,
    accept_numerics: bool,
    as_json: bool,
) -> None:
    """Say that all holds; the error of a run that does not hold names the first step.

    Raises ConfigError where `workers` is not one number.
    """
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
    run: Path, workers: str | None, cache_dir: Path | None, *, accept_numerics: bool
) -> Verification:
    if workers is not None and not (workers.isascii() and workers.isdigit()):
        raise ConfigError([f"--workers is {workers}; must be 0 or more (0: in this process)"])
    replay = _StoppableReplay(reporter(quiet=False))
    with replay.signals, replay.shown:
        return verify(
            run,
            num_workers=None if workers is None else int(workers),
            accept_numerics=accept_numerics,
            on_message=replay.shown.message,
            on_progress=replay.look,
            stop=replay.stop,
            cache_dir=cache_directory(cache_dir),
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
