"""The commands ``bench`` and ``scale-to``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from distsgd.cli.messages import print_json, say
from distsgd.errors import ConfigError
from distsgd.lab.bench import Bench, describe, run_bench
from distsgd.run.scale import scale


def show_bench(
    *,
    layers: str,
    batch: int,
    num_workers: int,
    seconds: float,
    statistics: Literal["none", "norms"],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time steps and print what was found."""
    try:
        sizes = tuple(int(size) for size in layers.split(","))
    except ValueError:
        raise ConfigError(
            [f"--layers is {layers}; must be sizes with commas, as 784,128,10"]
        ) from None
    bench = Bench(sizes, batch, num_workers, seconds, statistics, overrides)
    found = run_bench(bench)
    if as_json:
        print_json(found)
    else:
        describe(bench, found, say)


def show_scaling(run: Path, num_workers: int) -> None:
    """Ask the driver of `run` for another number of workers."""
    before = scale(run, num_workers)
    say(f"{run}: workers from now on: {num_workers} (wanted before: {before})")
