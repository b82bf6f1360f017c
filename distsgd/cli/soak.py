"""The command ``soak``: rounds of faults on purpose, shown as they end, and a table."""

from __future__ import annotations

import sys
from pathlib import Path

from distsgd.cli.messages import command_line, print_facts, print_json, say
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.lab.soak import Soak, soak, summary


def show_soak(
    config: Path,
    *,
    minutes: float,
    seed: int,
    rounds: int | None,
    faults: int | None,
    one_in: int,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make the rounds; exit code 1 with the seed of the one that gave another answer."""
    # A mistake answers at once.
    if missing := TrainConfig.from_toml(config).with_overrides(overrides).missing_sources():
        raise ConfigError(missing)
    done = soak(Soak(config, overrides, minutes, rounds, faults, one_in, seed), on_message=say)
    found = summary(done)
    if as_json:
        print_json(found)
    else:
        print_facts([(name.replace("_", " "), str(value)) for name, value in found.items()])
    if found["failed_seed"] is not None:
        settings = [word for override in overrides for word in ("--set", override)]
        seed_words = ("--seed", str(found["failed_seed"]), "--rounds", "1", "--one-in", str(one_in))
        say(f"repeat it with: {command_line('soak', config, *seed_words, *settings)}")
        sys.exit(1)
