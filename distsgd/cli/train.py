"""The command ``train``: configuration in, progress shown, result said."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distsgd.cli.messages import (
    command_line,
    duration,
    memory,
    number,
    print_facts,
    print_failure,
    print_json,
    say,
)
from distsgd.cli.progress import Reporter, reporter
from distsgd.cli.stop import StopSignals, stoppable
from distsgd.config import TrainConfig
from distsgd.errors import (
    ConfigError,
    DistSGDError,
    DivergedError,
    Interrupted,
    StoppedAtOnce,
    TrainingInterrupted,
)
from distsgd.parallel.server.metrics import KEYS

if TYPE_CHECKING:  # Read when a run starts, not when the command line is read.
    from distsgd.run.progress import Progress
    from distsgd.run.trainer import DryRun, Result


_RECORDED = "config.json"  # The name of the configuration in a run directory.


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed."""

    config: Path
    overrides: tuple[str, ...]
    workers: str | None
    run_dir: Path | None
    resume: Literal["never", "auto"]
    chaos: tuple[str, ...] = ()
    accept_numerics: bool = False
    cache_dir: Path | None = None
    as_json: bool = False
    quiet: bool = False

    def command(self, run: Path | None) -> str:
        """The command line that goes on with `run`, or starts it: all of it, for a shell."""
        config = str(self.config)
        words: list[str | Path] = [f"./{config}" if config.startswith("-") else config]
        words += [word for override in self.overrides for word in ("--set", override)]
        words += [] if self.workers is None else ["--workers", self.workers]
        run = self.run_dir or run
        words += [] if run is None else ["--run-dir", run]
        words += ["--accept-numerics"] if self.accept_numerics else []
        words += [] if self.cache_dir is None else ["--cache-dir", self.cache_dir]
        words += [word for fault in self.chaos for word in ("--chaos", fault)]
        words += ["--json"] if self.as_json else []
        words += ["--quiet"] if self.quiet else []
        return command_line("train", *words, "--resume", "auto")

    def read(self) -> TrainConfig:
        """The configuration with everything typed over it. Raises ConfigError."""
        typed = self.overrides
        if self.chaos:
            typed = (*typed, f"chaos.faults={json.dumps(self.chaos)}")
        if self.workers is not None:
            typed = (*typed, f"parallel.workers={workers_count(self.workers)}")
        is_recorded = self.config.name == _RECORDED
        config = self._recorded() if is_recorded else TrainConfig.from_toml(self.config)
        return config.with_overrides(typed) if typed else config

    def _recorded(self) -> TrainConfig:
        """The configuration that a run has recorded. Raises RunError."""
        from distsgd.run.run_files import recorded_config  # noqa: PLC0415 -- for this only.
        from distsgd.store.run_directory import RunDirectory  # noqa: PLC0415

        recorded = recorded_config(RunDirectory.open(self.config.parent))
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


def dry_run_of(request: Request) -> None:
    """Check the data and show the plan; Ray is not loaded."""
    config = request.read()
    from distsgd.cli.cache import cache_directory  # noqa: PLC0415
    from distsgd.run.trainer import Trainer  # noqa: PLC0415 -- errors above answer at once.

    plan = Trainer(
        config,
        run_dir=request.run_dir,
        resume=request.resume,
        cache_dir=cache_directory(request.cache_dir),
        on_message=say,
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
        ("network", f"{plan.features:,} features, {plan.outputs:,} outputs"),
        ("parameters", f"{plan.parameters:,}"),
        ("batch", f"{plan.batch_size:,} rows in {plan.blocks_per_step:,} blocks"),
        ("steps", f"{plan.steps:,}; {plan.steps_per_epoch:,} an epoch"),
        ("shuffle", f"{plan.shuffle}; {memory(plan.hot_bytes)} of rows in use at a time"),
        ("workers", f"{plan.num_workers:,}" + ("" if plan.num_workers else " (in this process)")),
        ("memory", f"about {memory(plan.memory_per_process_bytes)} a process"),
    ]


def run(request: Request) -> None:
    """Train; with ``--json`` the last line on standard output says how it ended, however it did."""
    try:
        with stoppable(lambda: StoppedAtOnce(False, request.command(None))):
            config = request.read()
            result = _fit(config, request, reporter(quiet=request.quiet))
    except DistSGDError as error:
        if request.as_json:
            print_failure(error, _failure(error, request.run_dir))
        raise
    if not request.quiet:
        _say_end(result, config.data.paths[0], request.cache_dir)
    if request.as_json:
        print_json(result.metrics)


def _fit(config: TrainConfig, request: Request, shown: Reporter) -> Result:
    from distsgd.cli.cache import cache_directory  # noqa: PLC0415
    from distsgd.run.trainer import Trainer  # noqa: PLC0415 -- errors above answer at once.

    signals: StopSignals

    def on_progress(now: Progress) -> None:
        signals.keep()
        shown.progress(now)

    trainer = Trainer(
        config,
        run_dir=request.run_dir,
        resume=request.resume,
        accept_numerics=request.accept_numerics,
        cache_dir=cache_directory(request.cache_dir),
        on_progress=on_progress,
        on_message=shown.message,
    )
    signals = StopSignals(trainer.request_stop, shown.message)
    with signals, shown:
        try:
            return trainer.fit()
        except TrainingInterrupted as stopped:
            way_on = request.command(stopped.path)
            raise TrainingInterrupted(stopped.path, stopped.step, way_on) from None
        except KeyboardInterrupt:
            has_begun = trainer.request_stop()
            raise StoppedAtOnce(has_begun, request.command(trainer.path)) from None


def _failure(error: DistSGDError, run_dir: Path | None) -> dict[str, Any]:
    """The object of ``--json`` where a run did not end well: the same keys, null where unknown."""
    values: dict[str, Any] = dict.fromkeys(KEYS)
    run = error.path if isinstance(error, TrainingInterrupted) else run_dir
    is_stopped = isinstance(error, Interrupted)
    values |= {"run": run, "status": "interrupted" if is_stopped else "failed"}
    if isinstance(error, TrainingInterrupted | DivergedError):
        values["status"] = "diverged" if isinstance(error, DivergedError) else "interrupted"
        values["steps"] = error.step
        if run is not None and (run / "result.json").is_file():
            values |= json.loads((run / "result.json").read_text())
    return values


def _say_end(result: Result, source: str, cache_dir: Path | None) -> None:
    metrics = result.metrics
    accuracy, loss = metrics["test_accuracy"], metrics["test_loss"]
    say(
        f"done: {metrics['steps']:,} steps, {number(metrics['epochs'], 1)} epochs in"
        f" {duration(metrics['seconds'])}, {number(metrics['samples_per_s'], 0)} samples/s,"
        f" train loss {number(metrics['train_loss'])}"
    )
    if accuracy is not None:
        say(f"test accuracy {number(accuracy)}  (test loss {number(loss)})")
    elif loss is not None:
        say(f"test loss {number(loss)}")
    say(f"the run lies in {shlex.quote(str(result.path))}")
    say("next:")
    for command in next_commands(result.path, source, cache_dir):
        say(f"  {command}")


def next_commands(run: Path, source: str, cache_dir: Path | None = None) -> list[str]:
    """What can be done with a finished run whose rows came from `source`."""
    cache = () if cache_dir is None else ("--cache-dir", cache_dir.expanduser().absolute())
    found = [command_line("show", run), command_line("verify", run, *cache)]
    if Path(source).is_file():  # No glob, no address, no prepared directory.
        names = (f"predictions{i or ''}.parquet" for i in itertools.count())
        out = next(name for name in names if not Path(name).exists())
        found.append(command_line("predict", run, "--data", source, "--out", out))
    return found
