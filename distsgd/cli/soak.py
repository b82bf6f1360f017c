"""``soak``: runs with injected faults, each compared with a run without."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.completion import complete_config
from distsgd.cli.options import JsonOption, OverridesOption
from distsgd.cli.own_modules import refuse_elsewhere
from distsgd.cli.terminal.messages import command_line, print_facts, print_json, say
from distsgd.errors import ConfigError


def soak(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml", help="The configuration.", autocompletion=complete_config
        ),
    ],
    *,
    minutes: Annotated[
        float, typer.Option(min=0.0, help="Start no run after so many minutes.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of which faults come when.")] = 0,
    rounds: Annotated[int | None, typer.Option(min=1, help="At most so many runs.")] = None,
    faults: Annotated[
        int | None, typer.Option(min=1, help="Start no run after so many faults.")
    ] = None,
    one_in: Annotated[
        int, typer.Option(min=1, help="Inject a fault at one in so many steps.")
    ] = 100,
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Inject random faults into run after run and compare each with a run without faults.

    Exit code 1 where one gave another answer, with the seed that repeats it.
    """
    from distsgd.config import TrainConfig

    changes = (*(overrides or ()),)
    # A mistake answers at once.
    read = TrainConfig.from_toml(config).with_overrides(changes)
    if missing := read.missing_sources():
        raise ConfigError(missing)
    refuse_elsewhere(read, config)
    from distsgd.lab.soak import Soak, summary
    from distsgd.lab.soak import soak as make_rounds

    rounds_of = Soak(config, changes, minutes, rounds, faults, one_in, seed)
    found = summary(make_rounds(rounds_of, on_message=say))
    if as_json:
        print_json(found)
    else:
        print_facts([(name.replace("_", " "), str(value)) for name, value in found.items()])
    if found["failed_seed"] is not None:
        settings = [word for override in changes for word in ("--set", override)]
        seed_words = ("--seed", str(found["failed_seed"]), "--rounds", "1", "--one-in", str(one_in))
        say(f"repeat it with: {command_line('soak', config, *seed_words, *settings)}")
        sys.exit(1)
