"""``experiment ...``: what batch size and workers buy, measured, with a report."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distsgd.cli.compare import compare
from distsgd.cli.completion import complete_config
from distsgd.cli.options import (
    CacheDirOption,
    JsonOption,
    OverridesOption,
    cache_directory,
    given_path,
    grouped,
)
from distsgd.cli.own_modules import refuse_elsewhere
from distsgd.cli.terminal.filling_table import FillingTable
from distsgd.cli.terminal.messages import (
    command_line,
    duration,
    failures_as_json,
    print_facts,
    print_json,
    say,
)
from distsgd.cli.terminal.start_again import compute_as
from distsgd.cli.terminal.stop import stoppable
from distsgd.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from distsgd.experiments.plan import ScalePlan

experiment_app = typer.Typer(
    help="Scaling experiments: what batch size and workers buy, with a report.",
    no_args_is_help=True,
)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TUNED = "optimizer.learning_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """What is typed after ``experiment scale CONFIG``."""

    batch_sizes: Annotated[
        str | None,
        typer.Option(metavar="B,B,...", help='Rows of a batch, as 1,8,64,512,full ("full": all).'),
    ] = None
    workers: Annotated[
        str, typer.Option(metavar="N,N,...", help="Worker processes; one core is always timed.")
    ] = "0,1,2"
    target: Annotated[
        str | None,
        typer.Option(help='What a run is to reach: "test_accuracy>=0.95" or "test_loss<=0.2".'),
    ] = None
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=LOW:HIGH",
            help=f"Choose the learning rate of each batch size: {_TUNED}=0.001:1.",
        ),
    ] = None
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each batch size that count.")] = 3
    pairs: Annotated[
        int,
        typer.Option(
            min=5,
            help="Timings of a cell, each next to one of one core; 12 find 5 % in 9 of 10 cases.",
        ),
    ] = 12
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Of the whole, as 90s, 15m or 2h; says what is left out."
        ),
    ] = None
    weak: Annotated[
        bool, typer.Option("--weak", help="Also time batches that grow with the workers.")
    ] = False
    peers: Annotated[
        str, typer.Option(metavar="NAME,...", help="Train with these as well: sklearn,torch,jax.")
    ] = ""
    overrides: OverridesOption = None


@grouped
def scale(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG.toml",
            parser=given_path,
            help="The configuration; its length is the budget of samples of each run.",
            autocompletion=complete_config,
        ),
    ] = None,
    *,
    typed: Typed,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of the experiment; a new one in experiments/ unless given."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Continue the experiment in DIR.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="The pictures as PNG as well.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run and how long, no more.")
    ] = False,
    cache_dir: CacheDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what batch size and workers buy: steps to a target, time of a step, their product.

    Ctrl-C ends it; --resume continues it. Exit code 6.
    """
    from distsgd.experiments import scale as experiments

    with failures_as_json(as_json):
        if resume is not None:
            _refuse_changes(config, typed, out)
            directory, plan = resume, experiments.read_plan(resume)
        else:
            directory, plan = out or _new_directory(config), _plan(config, typed)
        compute_as(plan.config)
        made = Made(directory, cache_directory(cache_dir), png=png, as_json=as_json)
        if dry_run:
            made.show_dry_run(plan)
        else:
            made.make(plan, is_new=resume is None)


@dataclass(frozen=True, slots=True)
class Made:
    """One experiment of this command."""

    directory: Path
    cache_dir: Path
    png: bool
    as_json: bool

    def show_dry_run(self, plan: ScalePlan) -> None:
        """What would be made, and how long it takes at most."""
        from distsgd.experiments.scale import Scale

        grid, found = Scale(self.directory, plan, self.cache_dir, say).dry_run()
        if self.as_json:
            print_json({**asdict(found), "batches": grid.batches, "left_out": grid.plan.left_out})
            return
        print_facts(
            [
                ("batch sizes", ", ".join(f"{batch:,}" for batch in grid.batches)),
                ("workers", ", ".join(map(str, grid.workers))),
                ("learning", f"{found.num_runs} runs of at most {grid.most_samples:,} samples"),
                ("evaluated", f"every {grid.grid_samples:,} samples"),
                ("timing", f"{found.num_pairs} pairs"),
                ("takes at most", f"about {duration(found.seconds)}"),
                ("learning takes", f"at most {duration(found.learning_s)}"),
                ("timing takes", duration(found.timing_s)),
                ("runs in full take", f"at most {duration(found.full_s)}"),
                ("branches take", f"at most {duration(found.branches_s)}"),
                ("peers take", f"at most about {duration(found.peers_s)}"),
                ("left out", "; ".join(grid.plan.left_out) or "nothing"),
            ]
        )

    def make(self, plan: ScalePlan, *, is_new: bool) -> None:
        """Make it, or what is missing of it, and write its report."""
        from distsgd.experiments import scale as experiments
        from distsgd.experiments.report import verdicts

        shown = FillingTable()
        experiment = experiments.Scale(
            self.directory, plan, self.cache_dir, shown.message, shown.note, shown.expect
        )
        way_on = command_line("experiment", "scale", "--resume", self.directory)
        interrupted = f"interrupted; continue it by: {way_on}"
        try:
            with stoppable(lambda: Interrupted(interrupted)), shown:
                if is_new:
                    experiment.begin()
                found = experiment.run()
        except Interrupted:  # A timing or a run in full that was under way has words of its own.
            raise Interrupted(interrupted) from None
        files = experiments.write(found, self.directory, png=self.png)
        for verdict in verdicts(found):
            say(verdict.sentence)
        for file in files:
            say(f"wrote {file}")
        if self.as_json:
            print_json({"directory": str(self.directory), "files": [str(file) for file in files]})


def _refuse_changes(config: Path | None, typed: Typed, out: Path | None) -> None:
    """An experiment is continued as it was begun. Raises ConfigError."""
    if config is not None or out is not None or typed != Typed():
        rule = "takes no configuration, and no other option than --png, --dry-run and --json"
        raise ConfigError([f"--resume continues an experiment as it was begun; it {rule}"])


def _new_directory(config: Path | None) -> Path:
    stem = config.stem if config else "experiment"
    return Path("experiments") / f"{stem}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _plan(path: Path | None, typed: Typed) -> ScalePlan:
    """Raises ConfigError."""
    from distsgd.config import TrainConfig
    from distsgd.experiments.plan import ScalePlan

    missing = [
        f"{name} is missing; must be {rule}"
        for name, given, rule in (
            ("CONFIG.toml", path, "a configuration (or --resume DIR)"),
            ("--batch-sizes", typed.batch_sizes, "rows of a batch, as 1,8,64,512,full"),
            ("--target", typed.target, 'what a run is to reach, as "test_accuracy>=0.95"'),
        )
        if given is None
    ]
    if missing or path is None:
        raise ConfigError(missing)
    config = TrainConfig.from_toml(path).with_overrides([*(typed.overrides or ())])
    refuse_elsewhere(config, path)
    return ScalePlan(
        config=config,
        batches=_batches(typed.batch_sizes or ""),
        workers=_counts("--workers", typed.workers, least=0),
        target=typed.target or "",
        rates=None if typed.tune is None else _rates(typed.tune),
        seeds=typed.seeds,
        budget_s=None if typed.budget is None else seconds_of(typed.budget),
        is_weak=typed.weak,
        peers=tuple(name for name in typed.peers.split(",") if name),
        num_pairs=typed.pairs,
        command=shlex.join(["distsgd", *sys.argv[1:]]),
    )


def _batches(typed: str) -> tuple[int | Literal["full"], ...]:
    words = [word.strip() for word in typed.split(",") if word.strip()]
    sizes: list[int | Literal["full"]] = []
    for word in words:
        if word == "full":
            sizes.append("full")
        else:
            sizes += _counts("--batch-sizes", word, least=1)
    return tuple(sizes)


def _counts(name: str, typed: str, *, least: int) -> tuple[int, ...]:
    words = [word.strip() for word in typed.split(",") if word.strip()]
    wrong = [word for word in words if not (word.isascii() and word.isdigit()) or int(word) < least]
    if wrong:
        raise ConfigError([f"{name} has {wrong[0]}; must be whole numbers, {least} or more"])
    return tuple(map(int, words))


def _rates(typed: str) -> tuple[float, float]:
    key, _, bounds = typed.partition("=")
    low, colon, high = bounds.partition(":")
    try:
        if key.strip() == _TUNED and colon:
            return float(low), float(high)
    except ValueError:
        pass
    raise ConfigError([f"--tune is {typed}; must be {_TUNED}=LOW:HIGH, as {_TUNED}=0.001:1"])


def seconds_of(typed: str) -> float:
    """A time as it is typed.

    >>> seconds_of("90s"), seconds_of("15m"), seconds_of("2h"), seconds_of("30")
    (90.0, 900.0, 7200.0, 30.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", typed.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError([f"--budget is {typed}; must be a time above 0, as 90s, 15m or 2h"])
    return float(found[1]) * _SECONDS[found[2] or "s"]


experiment_app.command()(scale)
experiment_app.command()(compare)
