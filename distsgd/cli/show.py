"""``show``: what a run is, how it went, what it left. Reads only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from distsgd.cli.options import JsonOption, RunArgument
from distsgd.cli.terminal.messages import (
    command_line,
    duration,
    failures_as_json,
    number,
    print_facts,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from distsgd.store import CheckpointStore, EvaluationRow, RunDirectory

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 48
_LAST_EVALUATIONS = 5
_ENVIRONMENT = ("distsgd", "python", "numpy", "blas", "kernel", "platform")


def show(
    run: RunArgument,
    *,
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw how it went into RUN/plots/ as well.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a run is, how it went and what it left."""
    with failures_as_json(as_json, run=run):
        found = Found.at(run)
        if as_json:
            values = summary(found)
            print_json(values | {"plots": [str(file) for file in _drawn(found, plots=plots)]})
            return
        print_facts(list(_facts(found)))
        if found.evaluations:
            _print_evaluations(found.evaluations)
        for file in _drawn(found, plots=plots):
            say(f"wrote {file}")


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a run directory, read once."""

    run: RunDirectory
    config: dict[str, Any]
    environment: dict[str, Any]
    result: dict[str, Any]
    history: Any
    evaluations: list[EvaluationRow]
    store: CheckpointStore

    @classmethod
    def at(cls, path: Path) -> Self:
        """Raises RunError and CheckpointError."""
        from distsgd.store import CheckpointStore, EvaluationLog, RunDirectory, read_history

        run = RunDirectory.open(path)
        return cls(
            run,
            run.read_json(run.config_path),
            _read_if_there(run, run.environment_path),
            _read_if_there(run, run.result_path),
            read_history(run.history),
            list(EvaluationLog(run.evaluations_path).read()),
            CheckpointStore(run.checkpoints),
        )


def summary(found: Found) -> dict[str, Any]:
    """All that is printed, as the values that it is printed from."""
    history, holder = found.history, found.run.holder()
    status = "training" if holder else found.result.get("status", "not finished")
    is_over = status in ("training", "done", "diverged")
    return {
        "run": str(found.run.place),
        "status": status,
        "process": holder,
        "resume_with": None if is_over else resume_command(found.run, found.config),
        "config": found.config,
        "environment": found.environment,
        "history": history.slice(max(0, len(history) - 1)).to_pylist()[-1:],
        "train_loss": means(history["train_loss"].to_pylist()) if len(history) else [],
        "checkpoints": list(found.store.steps()),
        "best_checkpoint": found.store.best_step(),
        "evaluations": [row._asdict() for row in found.evaluations[-_LAST_EVALUATIONS:]],
        "result": None if holder else found.result or None,
    }


def _drawn(found: Found, *, plots: bool) -> Iterator[Path]:
    if plots:
        from distsgd.cli.plots import draw_history

        yield from draw_history(found.run, found.evaluations)


def _facts(found: Found) -> Iterator[tuple[str, str]]:
    """All of it for people."""
    yield "run", str(found.run.place)
    yield from _config_facts(found.config)
    yield from _own_code_facts(found.environment)
    yield from _environment_facts(found.environment)
    yield from _history_facts(found.history)
    yield from _checkpoint_facts(found.store)
    yield from _status_facts(found)


def resume_command(run: RunDirectory, config: Mapping[str, Any]) -> str:
    """What resumes a run that is not finished, whole and ready to be pasted."""
    if config.get("data", {}).get("path"):
        words = (run.config_path, "--run-dir", str(run.place), "--resume", "auto")
        return command_line("train", *words)
    return f'Trainer(config, data=(x, y), run_dir="{run.place}").fit(resume="auto")'


def means(values: Sequence[float], width: int = _SPARK_WIDTH) -> list[float]:
    """Finite values in short: the means of at most `width` equal shares of them."""
    values = [value for value in values if math.isfinite(value)]
    pieces = min(width, len(values))
    edges = [len(values) * piece // pieces for piece in range(pieces + 1)] if pieces else []
    return [sum(values[first:last]) / (last - first) for first, last in pairwise(edges)]


def sparkline(values: Sequence[float], width: int = _SPARK_WIDTH) -> str:
    """Finite values as bars, each the mean of its share of them.

    >>> sparkline([3.0, 2.0, 1.0, 0.0])
    '█▆▃▁'
    """
    shares = means(values, width)
    if not shares:
        return ""
    low, span = min(shares), max(shares) - min(shares)
    top = len(_BARS) - 1
    return "".join(_BARS[round((mean - low) / span * top) if span else 0] for mean in shares)


def _read_if_there(run: RunDirectory, path: Path) -> dict[str, Any]:
    return run.read_json(path) if path.exists() else {}


def _config_facts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The configuration in short; a file of an older version may lack a part, which is left out."""
    data, model, train = (config.get(name, {}) for name in ("data", "model", "train"))
    optimizer, schedule = config.get("optimizer", {}), config.get("schedule", {})
    rows = _listed(data["path"]) if data.get("path") else "arrays"
    yield "data", rows + (f", label {_listed(data['label'])}" if data.get("label") else "")
    if model.get("factory"):
        yield "model", _factory(model)
    else:
        yield "network", f"{_layers(model.get('layers', ()))}, {model.get('loss')}"
    rate = f"learning rate {optimizer.get('learning_rate')}"
    yield "optimizer", f"{optimizer.get('type')}, {rate}, {schedule.get('type')} schedule"
    ends = [f"{train[key]:,} {key}" for key in ("epochs", "steps") if train.get(key)]
    ends += [str(train["target"])] if train.get("target") else []
    size = config.get("batch", {}).get("size")
    portable = ", portable numerics" if train.get("numerics") == "portable" else ""
    yield "training", f"batch {size}, {' or '.join(ends)}, seed {train.get('seed')}{portable}"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """``dense 64 relu > dense 10``."""
    words = (
        " ".join(str(layer[key]) for key in ("type", "units", "activation") if layer.get(key))
        for layer in layers
    )
    return " > ".join(words)


def _factory(model: Mapping[str, Any]) -> str:
    """``my_model:make(width=256)``, and the loss where that is named."""
    options = ", ".join(f"{key}={it!r}" for key, it in (model.get("options") or {}).items())
    return f"{model['factory']}({options})" + (f", {model['loss']}" if model.get("loss") else "")


def _own_code_facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All that the run is made with and that is not ours, by its name or as it was handed in."""
    recorded = environment.get("own_code")
    entries = recorded if isinstance(recorded, list) else []
    own = [
        f"{entry.get('what')} " + (entry.get("name") or f"{entry.get('shown')} (without a name)")
        for entry in entries
        if isinstance(entry, Mapping)
    ]
    if own:
        yield "own code", ", ".join(own)


def _environment_facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    flat = dict(_flattened(environment))
    known = [f"{key} {flat[key]}" for key in _ENVIRONMENT if key in flat]
    if known:
        yield "environment", ", ".join(known)
    if "data" in flat:
        yield "prepared data", str(flat["data"])


def _flattened(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value)
        else:
            yield key, value


def _history_facts(history: Any) -> Iterator[tuple[str, str]]:
    if not len(history):
        return
    losses = history["train_loss"].to_pylist()
    last = history.slice(len(history) - 1).to_pylist()[0]
    yield "history", f"to step {last['step']:,}, epoch {number(last['epoch'], 1)}"
    # By its logarithm: the first steps would leave a flat line of the rest.
    logarithms = [math.log(loss) for loss in losses if loss > 0]
    yield "loss by step", f"{number(losses[0])} {sparkline(logarithms)} {number(losses[-1])}"
    if last.get("noise_scale") is not None:
        yield "noise scale", f"{number(last['noise_scale'], 0)} rows"


def _checkpoint_facts(store: CheckpointStore) -> Iterator[tuple[str, str]]:
    best, steps = store.best_step(), store.steps()
    if steps:
        names = (f"{step:,}{' (best)' if step == best else ''}" for step in steps)
        yield "checkpoints", "steps " + ", ".join(names)


def _status_facts(found: Found) -> Iterator[tuple[str, str]]:
    holder, result = found.run.holder(), found.result
    if holder is not None:  # What an earlier session of it came to is not how it is.
        steps = found.store.steps()
        where = f"saved up to step {steps[-1]:,}" if steps else "nothing is saved yet"
        yield "status", f"training in process {holder}; {where}"
        return
    if result:
        yield from _result_facts(result)
    else:
        yield "status", "not finished"
    if result.get("status") not in ("done", "diverged"):
        yield "resume with", resume_command(found.run, found.config)


def _result_facts(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in result.items():
        if key == "run" or value is None or isinstance(value, Mapping | list):
            continue
        if key == "seconds":
            yield "time", duration(value)
        elif key == "samples_per_s":
            yield "samples/s", number(value, 0)
        else:
            yield key.replace("_", " "), value if isinstance(value, str) else number(value)


def _print_evaluations(evaluations: Sequence[EvaluationRow]) -> None:
    from rich.table import Table

    table = Table("step", "epoch", "test loss", "test accuracy", box=None, title="last evaluations")
    for row in evaluations[-_LAST_EVALUATIONS:]:
        table.add_row(
            f"{row.step:,}",
            number(row.epoch, 1),
            number(row.test_loss),
            number(row.test_accuracy),
        )
    print_table(table)
