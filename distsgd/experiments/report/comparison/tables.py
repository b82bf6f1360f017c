"""The tables of a comparison as texts: a line for each fact, a cell for each run. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distsgd.experiments.compare import Comparison, Difference
from distsgd.experiments.compared_run import NO_HISTORY, ComparedRun, ToTarget
from distsgd.experiments.report import words

_DIGEST = re.compile(r"[0-9a-f]{32,}")
_SHOWN_DIGITS = 12
NONE = "none"


@dataclass(frozen=True, slots=True)
class Line:
    """A fact of all runs; `is_figure`: a cell that is no number says why there is none."""

    name: str
    cells: tuple[str, ...]
    is_figure: bool = True


def results(comparison: Comparison) -> list[Line]:
    """How the runs went."""
    return [
        Line("run", tuple(run.place for run in comparison.runs), is_figure=False),
        Line("status", tuple(map(_status, comparison.runs)), is_figure=False),
        *(Line(name, tuple(map(shown, comparison.runs))) for name, shown in _facts(comparison)),
        *_machines(comparison),
    ]


def settings(comparison: Comparison) -> list[Line]:
    """Where the configurations differ."""
    return [_of_difference(row) for row in comparison.settings]


def environments(comparison: Comparison) -> list[Line]:
    """Where what the runs were made with differs."""
    return [_of_difference(row) for row in comparison.environments]


def _facts(comparison: Comparison) -> Iterator[tuple[str, Callable[[ComparedRun], str]]]:
    """Names with what is said of a run; what no run has is left out."""
    runs = comparison.runs
    yield "steps", lambda run: words.count(run.steps)
    yield "samples", lambda run: _or(run.samples, words.count, NO_HISTORY)
    yield "time", lambda run: _or(run.seconds, words.seconds, NO_HISTORY)
    yield "train loss", lambda run: _or(run.train_loss, _short, _no_loss(run))
    yield "test loss", lambda run: _or(run.test_loss, _short, _no_metric(run, "not finite"))
    if any(run.test_accuracy is not None for run in runs):
        yield (
            "test accuracy",
            lambda run: _or(run.test_accuracy, _short, _no_metric(run, "no classes")),
        )
    yield "samples a second", lambda run: _or(run.samples_per_s, words.count, NO_HISTORY)
    yield "seconds a step", lambda run: _or(run.step_s, words.seconds_within, run.step_s_reason)
    if any(run.noise_scale is not None for run in runs):
        yield "noise scale (samples)", lambda run: _or(run.noise_scale, words.count, "not measured")
    if comparison.target:
        yield "steps to target", lambda run: _to_target(run.to_target, "steps", words.count)
        yield "samples to target", lambda run: _to_target(run.to_target, "samples", words.count)
        yield "time to target", lambda run: _to_target(run.to_target, "seconds", words.seconds)


def _machines(comparison: Comparison) -> Iterator[Line]:
    if len(comparison.machines) > 1:
        numbers = {
            label: str(number)
            for number, labels in enumerate(comparison.machines, 1)
            for label in labels
        }
        yield Line("machine", tuple(numbers[run.label] for run in comparison.runs))


def _of_difference(row: Difference) -> Line:
    return Line(row.key, tuple(map(_value, row.values)), is_figure=False)


def _value(value: Any) -> str:
    """A value of a configuration or environment, digests in short."""
    if value is None or value == []:
        return NONE
    if isinstance(value, str):
        is_digest = _DIGEST.fullmatch(value) is not None
        return f"{value[:_SHOWN_DIGITS]}…" if is_digest else value
    return json.dumps(value, ensure_ascii=False)


def _status(run: ComparedRun) -> str:
    return f"{run.status} ({run.stopped_by})" if run.status == "done" else run.status


def _or(value: Any, shown: Callable[[Any], str], reason: str) -> str:
    return reason if value is None else shown(value)


def _short(value: float) -> str:
    return words.significant(value, 4)


def _no_loss(run: ComparedRun) -> str:
    return "diverged" if run.status == "diverged" else NO_HISTORY


def _no_metric(run: ComparedRun, otherwise: str) -> str:
    return otherwise if run.evaluations else "no evaluation"


def _to_target(found: ToTarget | None, name: str, shown: Callable[[float], str]) -> str:
    assert found is not None, "a target was asked for"
    return _or(getattr(found, name), shown, found.reason)
