"""One run as it is compared with others: what its directory says, finished or not. Reads only.

Nothing that the run names is imported, and its data are not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from distsgd.base.locations import place_argument
from distsgd.experiments.course import Course, Evaluated, LossPoint
from distsgd.parallel.server.target import Target
from distsgd.run.run_files import recorded_config
from distsgd.statistics.intervals import Interval
from distsgd.statistics.noise_summary import late_noise_scale
from distsgd.store.beginning import INITIAL_WEIGHTS
from distsgd.store.logs import DigestLog, EvaluationLog, EvaluationRow, read_history
from distsgd.store.run_directory import RunDirectory

NO_HISTORY = "no history"
_DIGESTS = ("probe", "operations", "model")  # The last of a model of one's own alone.
_ENVIRONMENT = ("distsgd", "python", "platform", "packages", "numerics", "data_digest", "own_code")
_DATA_PATHS = ("path", "test_path")

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToTarget:
    """The first evaluation that met the target; `reason` says why there is none."""

    steps: int | None
    samples: int | None
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run; None is what is not known, and a reason says why.

    Attributes:
        label: "A" for the first; what the others call it.
        status: "done", "diverged", "interrupted", "training" or "not finished".
        stopped_by: As in ``result.json``; "" for a run that has not ended.
        settings: Its whole configuration, by dotted key.
        environment: What it was made with, by dotted key.
        machine: What its record says of the machine; equal for one machine, or for two alike.
        seconds: Spent training, evaluations and checkpoints included.
        train_loss: Over the last pass over the rows.
        test_loss: Of the last evaluation, as `test_accuracy`.
        samples_per_s: Of the whole.
        step_s: Median of a step without evaluations, in seconds.
        noise_scale: Of the last third, in samples.
        to_target: None where no target was asked for.
    """

    label: str
    place: str
    status: str
    stopped_by: str
    advice: str
    settings: Values
    environment: Values
    machine: str
    steps: int
    samples: int | None
    seconds: float | None
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    samples_per_s: float | None
    step_s: Interval | None
    step_s_reason: str
    noise_scale: float | None
    to_target: ToTarget | None
    evaluations: tuple[Evaluated, ...]
    losses: tuple[LossPoint, ...]


@dataclass(frozen=True, slots=True)
class Bits:
    """What the bits of a run depend on, and what it says of them.

    Attributes:
        inputs: Equal for runs whose bits are to be equal: configuration, data, first weights.
        profile: Of the numerics; bits are equal only where it is.
        own_code: What is not ours, with the digests of its source.
        digests: By (step, "chain" or "weights").
    """

    inputs: str
    profile: str
    own_code: str
    digests: dict[tuple[int, str], str]


def read_run(label: str, place: object, target: Target | None) -> tuple[ComparedRun, Bits]:
    """The run at `place`, a directory or an address; from there it is fetched. Blocks.

    Raises:
        RunError: It is no run, is damaged, or is of another version.
        CheckpointError: Its history or a log is damaged.
        StorageError: The storage refuses, or does not answer.
    """
    run = RunDirectory.open(place_argument("run", place))
    config = recorded_config(run)
    environment = run.read_json(run.environment_path)
    course = Course.of(read_history(run.history))
    status, result = _ending(run, course)
    rows = EvaluationLog(run.evaluations_path).read()
    evaluations = tuple(map(course.evaluated, rows))
    step_s, why = course.step_seconds([row.step for row in rows])
    steps = max(result.get("steps", 0), int(course.step_S[-1]))
    samples = course.samples_at(steps)
    seconds = result.get("seconds", float(course.seconds_S[-1]) or None)
    last = evaluations[-1] if evaluations else None
    compared = ComparedRun(
        label=label,
        place=str(run.place),
        status=status,
        stopped_by=result.get("stopped_by", ""),
        advice=result.get("advice") or "",
        settings=flat(config.to_dict()),
        environment=flat({key: environment.get(key) for key in _ENVIRONMENT}),
        machine=_machine(environment, config.train.numerics),
        steps=steps,
        samples=samples,
        seconds=seconds,
        train_loss=None if status == "diverged" else course.last_loss(),
        test_loss=last.test_loss if last else None,
        test_accuracy=last.test_accuracy if last else None,
        samples_per_s=samples / seconds if samples and seconds else None,
        step_s=step_s,
        step_s_reason=why,
        noise_scale=late_noise_scale(course.samples_S, course.noise_S),
        to_target=_to_target(target, rows, evaluations, status),
        evaluations=evaluations,
        losses=course.losses(),
    )
    return compared, _bits(run, config.canonical(), environment, result)


def flat(values: Mapping[str, Any]) -> Values:
    """Nested values by dotted key; lists of tables by their number, other lists whole.

    >>> flat({"a": {"b": 1, "c": [{"d": 2}, {"d": 3}]}, "e": [4, 5]})
    {'a.b': 1, 'a.c.1.d': 2, 'a.c.2.d': 3, 'e': [4, 5]}
    """
    return dict(_flat("", values))


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    parts: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        parts = value
    elif isinstance(value, list) and value and all(isinstance(it, Mapping) for it in value):
        parts = {str(number): it for number, it in enumerate(value, 1)}
    for name, inner in parts.items():
        yield from _flat(f"{key}.{name}" if key else name, inner)
    if not parts and key:
        yield key, value


def _ending(run: RunDirectory, course: Course) -> tuple[str, Values]:
    """How the run stands, and its result: none of an earlier session than the last."""
    if run.holder() is not None:
        return "training", {}
    result = run.read_result()
    if result.get("steps", 0) < course.step_S[-1]:
        return "not finished", {}
    return result.get("status", "not finished"), result


def _machine(environment: Values, numerics: str) -> str:
    """Its platform, processor and kernel; where those are pinned, that they are."""
    profile = environment.get("numerics") or {}
    pinned = ("portable",) if numerics == "portable" else ()
    parts = pinned or [str(profile.get(key)) for key in ("kernel", "features")]
    return ", ".join([str(environment.get("platform")), str(profile.get("machine")), *parts])


def _to_target(
    target: Target | None,
    rows: Sequence[EvaluationRow],
    evaluations: Sequence[Evaluated],
    status: str,
) -> ToTarget | None:
    if target is None:
        return None
    for row, it in zip(rows, evaluations, strict=True):
        if target.is_met(row):
            reason = NO_HISTORY if it.samples is None else ""
            return ToTarget(it.step, it.samples, it.seconds, reason)
    values = [getattr(row, target.metric) for row in rows]
    reason = "not reached"
    if not rows:
        reason = "no evaluation"
    elif all(value is None for value in values):
        reason = f"no {target.metric.replace('_', ' ')}"
    ending = "" if status == "done" else f", {status}"
    return ToTarget(None, None, None, reason + ending)


def _bits(run: RunDirectory, canonical: Values, environment: Values, result: Values) -> Bits:
    """What decides about the bits; where the data lie does not, what they are does."""
    data = {key: it for key, it in canonical["data"].items() if key not in _DATA_PATHS}
    first = run.path / INITIAL_WEIGHTS
    weights = blake3(first.read_bytes()).hexdigest() if first.is_file() else ""
    inputs = [canonical | {"data": data}, environment.get("data_digest"), weights]
    profile = environment.get("numerics") or {}
    digests = {(row.step, "chain"): row.digest for row in DigestLog(run.digests_path).read()}
    if result.get("weights_digest"):
        digests[result["steps"], "weights"] = result["weights_digest"]
    return Bits(
        json.dumps(inputs, sort_keys=True),
        "-".join(str(profile.get(key)) for key in _DIGESTS if key in profile),
        json.dumps(environment.get("own_code"), sort_keys=True),
        digests,
    )
