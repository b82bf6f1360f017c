"""The commands that use a run: ``evaluate``, ``predict`` and ``verify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from distsgd.cli.cache import cache_directory
from distsgd.cli.messages import number, print_facts, print_json, say
from distsgd.errors import ConfigError
from distsgd.run.evaluate import evaluate, predict
from distsgd.run.verify import verify


def show_evaluation(run: Path, data: Path | None, cache_dir: Path | None, *, as_json: bool) -> None:
    """Print loss and accuracy on `data`, or on the run's own test rows."""
    found = evaluate(run, data, cache_dir=cache_directory(cache_dir))
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


def write_predictions(run: Path, data: Path, out: Path) -> None:
    """Write one row of predictions for each row of `data`."""
    rows = predict(run, data, out)
    say(f"wrote {rows:,} rows to {out}")


def show_verification(
    run: Path, workers: str | None, cache_dir: Path | None, *, accept_numerics: bool
) -> None:
    """Say that all holds; the error of a run that does not hold names the first step.

    Raises ConfigError where `workers` is not one number.
    """
    if workers is not None and not (workers.isascii() and workers.isdigit()):
        raise ConfigError([f"--workers is {workers}; must be 0 or more (0: in this process)"])
    held = verify(
        run,
        num_workers=None if workers is None else int(workers),
        accept_numerics=accept_numerics,
        on_message=say,
        cache_dir=cache_directory(cache_dir),
    )
    what = f"history, weights and {held.digests:,} digests over {held.steps:,} steps hold"
    print_facts([("verified", what)])
