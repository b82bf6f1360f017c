"""``train``: configuration in, progress shown, result said."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distsgd.base.locations import Location
from distsgd.cli.options import (
    AcceptNumericsOption,
    CachePlaceOption,
    ConfigArgument,
    JsonOption,
    OverridesOption,
    RunDirOption,
    WorkersOption,
    cache_place,
    grouped,
)
from distsgd.cli.own_modules import refuse_elsewhere
from distsgd.cli.terminal.messages import (
    command_line,
    duration,
    memory,
    number,
    print_facts,
    print_failure,
    print_json,
    say,
)
from distsgd.cli.terminal.progress import reporter
from distsgd.cli.terminal.start_again import compute_as
from distsgd.cli.terminal.stop import StopSignals, stoppable
from distsgd.errors import (
    ConfigError,
    DistSGDError,
    DivergedError,
    HeadLostError,
    Interrupted,
    PublishError,
    StoppedAtOnce,
    TrainingInterrupted,
)

if TYPE_CHECKING:
    from distsgd.config import TrainConfig
    from distsgd.run.dry_run import DryRun
    from distsgd.run.progress import Progress
    from distsgd.run.run import Run


_RECORDED = "config.json"  # The name of the configuration in a run directory.


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is typed after ``train CONFIG``."""

    overrides: OverridesOption = None
    workers: WorkersOption = None
    run_dir: RunDirOption = None
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(
            help="auto: continue the run in --run-dir, or unless given the newest in runs/ of this "
            "configuration, from its last checkpoint; start one where there is none."
        ),
    ] = "never"
    accept_numerics: AcceptNumericsOption = False
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Supersede another process that trains this run on object storage."
        ),
    ] = False
    cache_dir: CachePlaceOption = None
    inject: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT",
            help='Inject a fault: "kill worker every 50 steps". Repeatable.',
        ),
    ] = None
    as_json: JsonOption = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages, no progress.")] = False
    way_on: Annotated[str, typer.Option(hidden=True, help="What resumes the run, of a job.")] = ""

    def command(self, config: Path, run: object) -> str:
        """The command line that resumes `run`, or starts it: all of it, for a shell."""
        if self.way_on:
            return self.way_on
        name = str(config)
        words: list[str | Path] = [f"./{name}" if name.startswith("-") else name]
        words += [word for override in self.overrides or () for word in ("--set", override)]
        words += [] if self.workers is None else ["--workers", self.workers]
        run = self.run_dir or run
        words += [] if run is None else ["--run-dir", str(run)]
        words += ["--accept-numerics"] if self.accept_numerics else []
        words += [] if self.cache_dir is None else ["--cache-dir", str(self.cache_dir)]
        words += [word for fault in self.inject or () for word in ("--inject", fault)]
        words += ["--json"] if self.as_json else []
        words += ["--quiet"] if self.quiet else []
        return command_line("train", *words, "--resume", "auto")


@grouped
def train(
    config: ConfigArgument,
    *,
    request: Request,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data and show the plan, no more.")
    ] = False,
    chaos: Annotated[list[str] | None, typer.Option(hidden=True)] = None,  # house: old name
) -> None:
    """Train the model of a configuration.

    Ctrl-C ends it after the present step with a checkpoint, a second one at once; exit code 6.
    """
    if chaos:  # house: old name
        say("note: --chaos is now --inject; the old name is accepted until the next release")
        request = replace(request, inject=[*(request.inject or ()), *chaos])  # house: old name
    if dry_run:
        show_dry_run(config, request)
    else:
        run(config, request)


def read_config(path: Path, request: Request, here: Path | None = None) -> TrainConfig:
    """The configuration with everything typed over it, in a process that computes as it says.

    It is trained where the command is started, or in `here`.

    Raises ConfigError, RunError, NumericsError, and `StartAgain` for another process.
    """
    from distsgd.config import TrainConfig

    typed = [*(request.overrides or ())]
    if request.inject:
        from distsgd.lab.faults.injection import overrides

        typed += overrides(request.inject)
    if request.workers is not None:
        typed.append(f"parallel.workers={workers_count(request.workers)}")
    config = _recorded(path) if path.name == _RECORDED else TrainConfig.from_toml(path)
    config = config.with_overrides(typed) if typed else config
    refuse_elsewhere(config, path, here)
    compute_as(config)
    return config


def _recorded(path: Path) -> TrainConfig:
    """The configuration that a run has recorded. Raises RunError."""
    from distsgd.config import TrainConfig
    from distsgd.run.run_files import recorded_config
    from distsgd.store.run_directory import RunDirectory

    recorded = recorded_config(RunDirectory.open(path.parent))
    # What is at its default need not have been said: a prepared directory may differ from it.
    return TrainConfig.from_dict(recorded.model_dump(mode="json", exclude_defaults=True))


def workers_count(typed: str) -> int | str:
    """``--workers`` as a number, "auto", or "[fewest, most]". Raises ConfigError."""
    if typed == "auto":
        return typed
    if typed.isascii() and typed.isdigit():
        return int(typed)
    fewest, dash, most = typed.partition("-")
    if dash and typed.isascii() and fewest.isdigit() and most.isdigit():
        return f"[{int(fewest)}, {int(most)}]"
    raise ConfigError(
        [f'--workers is {typed}; must be 0 or more, "auto", or as 1-4 (0: in this process)']
    )


def show_dry_run(path: Path, request: Request) -> None:
    """Check the data and show the plan; Ray is not loaded."""
    config = read_config(path, request)
    from distsgd.run.callbacks import Callback
    from distsgd.run.trainer import Trainer  # Here: errors above answer at once.

    plan = Trainer(
        config,
        run_dir=request.run_dir,
        cache_dir=cache_place(request.cache_dir),
        callbacks=[Callback(on_message=say)],
    ).plan()
    if request.as_json:
        print_json(asdict(plan))
        return
    print_facts(plan_facts(plan))
    for warning in plan.warnings:
        say(f"warning: {warning}")


def plan_facts(plan: DryRun) -> list[tuple[str, str]]:
    """The plan for people."""
    return [
        ("rows", f"{plan.rows:,} to train, {plan.test_rows:,} to test"),
        ("model", f"{plan.model}; {plan.features:,} features, {plan.outputs:,} outputs"),
        ("parameters", f"{plan.parameters:,}"),
        ("batch", f"{plan.batch_size:,} rows in {plan.blocks_per_step:,} blocks"),
        ("steps", f"{plan.steps:,}; {plan.steps_per_epoch:,} an epoch"),
        ("evaluations", _evaluations(plan)),
        ("shuffle", f"{plan.shuffle}; {memory(plan.hot_bytes)} of rows in use at a time"),
        ("workers", _workers(plan.num_workers)),
        ("memory", f"about {memory(plan.memory_per_process_bytes)} a process"),
    ]


def run(path: Path, request: Request) -> None:
    """Train; with ``--json`` the last line on standard output says how it ended, however it did."""
    try:
        with stoppable(lambda: StoppedAtOnce(False, request.command(path, None))):
            config = read_config(path, request)
            result = _fit(config, path, request)
    except DistSGDError as error:
        if request.as_json:
            print_failure(error, _failure(error, request.run_dir))
        raise
    if not request.quiet:
        _say_end(result, config.data.paths[0], request.cache_dir)
    if request.as_json:
        print_json(result.metrics)


def _fit(config: TrainConfig, path: Path, request: Request) -> Run:
    from distsgd.run.callbacks import Callback
    from distsgd.run.trainer import Trainer  # Here: errors in the configuration answer at once.

    signals: StopSignals
    shown = reporter(quiet=request.quiet)

    def on_progress(now: Progress) -> None:
        signals.keep()
        shown.progress(now)

    trainer = Trainer(
        config,
        run_dir=request.run_dir,
        cache_dir=cache_place(request.cache_dir),
        callbacks=[Callback(on_progress=on_progress, on_message=shown.message)],
    )
    signals = StopSignals(trainer.request_stop, shown.message)
    with signals, shown:
        try:
            return trainer.fit(
                resume=request.resume,
                accept_numerics=request.accept_numerics,
                take_over=request.take_over,
            )
        except TrainingInterrupted as stopped:
            way_on = request.command(path, stopped.path)
            raise TrainingInterrupted(stopped.path, stopped.step, way_on) from None
        except HeadLostError as lost:
            way_on = request.command(path, lost.path)
            fields = (lost.path, lost.step, lost.is_saved, way_on)
            raise HeadLostError(lost.place, lost.silent_s, *fields) from None
        except PublishError as lost:
            way_on = request.command(path, lost.address)
            raise PublishError(lost.address, lost.reason, way_on) from None
        except KeyboardInterrupt:
            has_begun = trainer.request_stop()
            raise StoppedAtOnce(has_begun, request.command(path, trainer.path)) from None


def _failure(error: DistSGDError, run_dir: Path | Location | None) -> dict[str, Any]:
    """The object of ``--json`` where a run did not end well: the same keys, null where unknown."""
    from distsgd.parallel.server.spec import KEYS

    values: dict[str, Any] = dict.fromkeys(KEYS)
    run: object = run_dir
    status = "interrupted" if isinstance(error, Interrupted) else "failed"
    if isinstance(error, TrainingInterrupted | HeadLostError):
        run = error.path
    if isinstance(error, DivergedError):
        status = "diverged"
    values |= {"run": None if run is None else str(run), "status": status}
    if isinstance(error, TrainingInterrupted | DivergedError | HeadLostError):
        values["steps"] = error.step
        if isinstance(run, Path) and (run / "result.json").is_file():
            values |= json.loads((run / "result.json").read_text()) | {"status": status}
    return values


def _say_end(result: Run, source: str, cache_dir: Path | Location | None) -> None:
    metrics = result.metrics
    accuracy, loss = metrics["test_accuracy"], metrics["test_loss"]
    is_met = metrics["stopped_by"] == "target"
    say(
        f"done{f' ({result.config.train.target})' if is_met else ''}:"
        f" {metrics['steps']:,} steps, {number(metrics['epochs'], 1)} epochs in"
        f" {duration(metrics['seconds'])}, {number(metrics['samples_per_s'], 0)} samples/s,"
        f" train loss {number(metrics['train_loss'])}"
    )
    if accuracy is not None:
        say(f"test accuracy {number(accuracy)}  (test loss {number(loss)})")
    elif loss is not None:
        say(f"test loss {number(loss)}")
    say(f"the run lies in {shlex.quote(str(result.place))}")
    say("next:")
    for command in next_commands(result.place, source, cache_dir):
        say(f"  {command}")


def next_commands(
    run: Path | Location, source: str, cache_dir: Path | Location | None = None
) -> list[str]:
    """What can be done with a finished run whose rows came from `source`."""
    if isinstance(cache_dir, Path):
        cache_dir = cache_dir.expanduser().absolute()
    cache = () if cache_dir is None else ("--cache-dir", str(cache_dir))
    found = [command_line("show", str(run)), command_line("verify", str(run), *cache)]
    if Path(source).is_file():  # No glob, no address, no prepared directory.
        names = (f"predictions{i or ''}.parquet" for i in itertools.count())
        out = next(name for name in names if not Path(name).exists())
        found.append(command_line("predict", str(run), "--data", source, "--out", out))
    return found


def _evaluations(plan: DryRun) -> str:
    """When the held-out rows are evaluated, and what that may end."""
    if plan.evaluate_every is None:
        return "none: no rows are held out"
    until = "" if plan.target is None else f", until {plan.target}"
    return f"every {plan.evaluate_every} and at the end{until}"


def _workers(count: int | None) -> str:
    """How many, and where.

    >>> _workers(2), _workers(0), _workers(None)
    ('2', '0 (in this process)', 'as many as the cluster has room for')
    """
    if count is None:
        return "as many as the cluster has room for"
    return f"{count:,}" if count else "0 (in this process)"
