"""The command ``train``: configuration in, progress shown, result said."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distsgd.cli.messages import duration, memory, number, print_facts, print_json, say
from distsgd.cli.progress import Reporter, reporter
from distsgd.cli.stop import StopSignals, stoppable
from distsgd.config import TrainConfig
from distsgd.errors import (
    ConfigError,
    DistSGDError,
    DivergedError,
    StoppedAtOnce,
    TrainingInterrupted,
)
from distsgd.run.metrics import KEYS

if TYPE_CHECKING:  # Read when a run starts, not when the command line is read.
    from distsgd.run.progress import Progress
    from distsgd.run.trainer import Plan, Result


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

    def read(self) -> TrainConfig:
        """The configuration with everything typed over it. Raises ConfigError."""
        typed = self.overrides
        if self.chaos:
            typed = (*typed, f"chaos.faults={json.dumps(self.chaos)}")
        if self.workers is not None:
            typed = (*typed, f"parallel.workers={workers_count(self.workers)}")
        config = TrainConfig.from_toml(self.config)
        return config.with_overrides(typed) if typed else config


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


def dry_run_of(request: Request, *, as_json: bool) -> None:
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
    if as_json:
        print_json(asdict(plan))
        return
    print_facts(plan_facts(plan))
    for warning in plan.warnings:
        say(f"warning: {warning}")


def plan_facts(plan: Plan) -> list[tuple[str, str]]:
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


def run(request: Request, *, as_json: bool, quiet: bool) -> None:
    """Train; with `as_json` the last line on standard output says how it ended, however it did."""
    try:
        with stoppable():
            config = request.read()
            result = _fit(config, request, reporter(quiet=quiet))
    except DistSGDError as error:
        if as_json:
            print_json(_failure(error, request.run_dir))
        raise
    if not quiet:
        _say_end(result, config.data.paths[0])
    if as_json:
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
        except KeyboardInterrupt:
            raise StoppedAtOnce(has_begun=trainer.request_stop()) from None


def _failure(error: DistSGDError, run_dir: Path | None) -> dict[str, Any]:
    """The object of ``--json`` where a run did not end well: the same keys, null where unknown."""
    values: dict[str, Any] = dict.fromkeys(KEYS)
    run = error.path if isinstance(error, TrainingInterrupted) else run_dir
    is_stopped = isinstance(error, StoppedAtOnce)
    values |= {"run": run, "status": "interrupted" if is_stopped else "failed"}
    if isinstance(error, TrainingInterrupted | DivergedError):
        values["status"] = "diverged" if isinstance(error, DivergedError) else "interrupted"
        values["steps"] = error.step
        if run is not None and (run / "result.json").is_file():
            values |= json.loads((run / "result.json").read_text())
    return values | {"error": str(error), "exit_code": error.exit_code}


def _say_end(result: Result, source: str) -> None:
    metrics, where = result.metrics, shlex.quote(str(result.path))
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
    say(f"the run lies in {where}")
    say("next:")
    say(f"  distsgd show {where}")
    say(f"  distsgd verify {where}")
    rows = "FILE" if Path(source).is_dir() else shlex.quote(source)  # A prepared directory.
    say(f"  distsgd predict {where} --data {rows} --out predictions.parquet")
