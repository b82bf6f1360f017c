"""The command ``show``: what a run is, how it went, what it left. Reads only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.table import Table

from distsgd.cli.history_pictures import draw_run
from distsgd.cli.messages import (
    command_line,
    duration,
    number,
    print_facts,
    print_json,
    print_table,
    say,
)
from distsgd.store import (
    CheckpointStore,
    EvaluationLog,
    EvaluationRow,
    RunDirectory,
    read_history,
)

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 48
_LAST_EVALUATIONS = 5
_ENVIRONMENT = ("distsgd", "python", "numpy", "blas", "kernel", "platform")


def show_run(path: Path, *, plots: bool = False, as_json: bool = False) -> None:
    """Print a summary of the run at `path`, with `plots` draw it too.

    Raises RunError and CheckpointError.
    """
    run = RunDirectory.open(path)
    evaluations = EvaluationLog(run.evaluations_path).read()
    if as_json:
        values = summary(run, evaluations)
        drawn = [str(file) for file in draw_run(run, evaluations)] if plots else []
        print_json(values | {"plots": drawn})
        return
    facts = [
        ("run", str(run.path)),
        *_config_facts(run.read_json(run.config_path)),
        *_environment_facts(_read_if_there(run, run.environment_path)),
        *_history_facts(run),
        *_checkpoint_facts(run),
        *_status_facts(run),
    ]
    print_facts(facts)
    if evaluations:
        _print_evaluations(evaluations)
    if plots:
        for file in draw_run(run, evaluations):
            say(f"wrote {file}")


def summary(run: RunDirectory, evaluations: Sequence[EvaluationRow]) -> dict[str, Any]:
    """All that is printed, as the values that it is printed from."""
    config = run.read_json(run.config_path)
    result, holder = _read_if_there(run, run.result_path), run.holder()
    history, store = read_history(run.history), CheckpointStore(run.checkpoints)
    status = "training" if holder else result.get("status", "not finished")
    is_over = status in ("training", "done", "diverged")
    return {
        "run": str(run.path),
        "status": status,
        "process": holder,
        "go_on_with": None if is_over else way_on(run, config),
        "config": config,
        "environment": _read_if_there(run, run.environment_path),
        "history": history.slice(max(0, len(history) - 1)).to_pylist()[-1:],
        "train_loss": means(history["train_loss"].to_pylist()) if len(history) else [],
        "checkpoints": list(store.steps()),
        "best_checkpoint": store.best_step(),
        "evaluations": [row._asdict() for row in evaluations[-_LAST_EVALUATIONS:]],
        "result": None if holder else result or None,
    }


def way_on(run: RunDirectory, config: Mapping[str, Any]) -> str:
    """What goes on with a run that is not finished, whole and ready to be pasted."""
    if config.get("data", {}).get("path"):
        words = (run.config_path, "--run-dir", run.path, "--resume", "auto")
        return command_line("train", *words)
    return f'Trainer(config, data=(x, y), run_dir="{run.path}", resume="auto").fit()'


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
    yield "network", f"{_layers(model.get('layers', ()))}, {model.get('loss')}"
    rate = f"learning rate {optimizer.get('learning_rate')}"
    yield "optimizer", f"{optimizer.get('type')}, {rate}, {schedule.get('type')} schedule"
    ends = [f"{train[key]:,} {key}" for key in ("epochs", "steps") if train.get(key)]
    size = config.get("batch", {}).get("size")
    yield "training", f"batch {size}, {' or '.join(ends)}, seed {train.get('seed')}"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """``dense 64 relu > dense 10``."""
    words = (
        " ".join(str(layer[key]) for key in ("type", "units", "activation") if layer.get(key))
        for layer in layers
    )
    return " > ".join(words)


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


def _history_facts(run: RunDirectory) -> Iterator[tuple[str, str]]:
    history = read_history(run.history)
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


def _checkpoint_facts(run: RunDirectory) -> Iterator[tuple[str, str]]:
    store = CheckpointStore(run.checkpoints)
    best, steps = store.best_step(), store.steps()
    if steps:
        names = (f"{step:,}{' (best)' if step == best else ''}" for step in steps)
        yield "checkpoints", "steps " + ", ".join(names)


def _status_facts(run: RunDirectory) -> Iterator[tuple[str, str]]:
    holder, result = run.holder(), _read_if_there(run, run.result_path)
    if holder is not None:  # What an earlier session of it came to is not how it is.
        steps = CheckpointStore(run.checkpoints).steps()
        where = f"saved up to step {steps[-1]:,}" if steps else "nothing is saved yet"
        yield "status", f"training in process {holder}; {where}"
        return
    if result:
        yield from _result_facts(result)
    else:
        yield "status", "not finished"
    if result.get("status") not in ("done", "diverged"):
        yield "go on with", way_on(run, run.read_json(run.config_path))


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
    table = Table("step", "epoch", "test loss", "test accuracy", box=None, title="last evaluations")
    for row in evaluations[-_LAST_EVALUATIONS:]:
        table.add_row(
            f"{row.step:,}",
            number(row.epoch, 1),
            number(row.test_loss),
            number(row.test_accuracy),
        )
    print_table(table)
