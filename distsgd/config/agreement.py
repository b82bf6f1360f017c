"""Rules between keys that are right by themselves. No I/O here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from distsgd.config.data_agreement import data_disagreements
from distsgd.config.data_section import DataSection
from distsgd.config.model_agreement import model_disagreements
from distsgd.config.parallel_section import ParallelSection
from distsgd.config.problems import Problem, shown
from distsgd.config.sections import (
    EVALUATION_KEYS,
    BatchSection,
    ModelSection,
    OptimizerSection,
    ScheduleSection,
    TrainSection,
)
from distsgd.errors import ConfigError
from distsgd.parallel.launch.session.address import what_is_wrong
from distsgd.parallel.observer import OBSERVER
from distsgd.parallel.server.target import Target

# Ray's names, by what else people write.
_RESOURCES = {
    "cpu": "CPU",
    "cpus": "CPU",
    "num_cpus": "CPU",
    "gpu": "GPU",
    "gpus": "GPU",
    "num_gpus": "GPU",
    "memory": "memory",
    "mem": "memory",
}
# Labels are as Kubernetes has them.
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_WORD}")
_LABEL_RULE = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))")


def disagreements(
    data: DataSection,
    *,
    model: ModelSection,
    optimizer: OptimizerSection,
    schedule: ScheduleSection,
    batch: BatchSection,
    train: TrainSection,
) -> list[Problem]:
    """Everything that cannot stand together in one configuration."""
    return [
        *data_disagreements(data),
        *model_disagreements(data, model),
        *_about_length(train),
        *_about_evaluation(train),
        *_about_target(train),
        *_about_sampler(batch),
        *optimizer.problems("optimizer"),
        *schedule.problems("schedule"),
    ]


def parallel_disagreements(parallel: ParallelSection) -> list[Problem]:
    """The same for what is no input to the bits; and what cannot be said of one of its keys."""
    wrong = {
        "workers": _wrong_workers(parallel.workers),
        "resources": _wrong_resources(parallel.resources),
        "label_selector": _wrong_labels(parallel.label_selector),
        "address": _wrong_address("local" if parallel.address is None else parallel.address),
    }
    return [
        *(
            Problem((f"parallel.{key}",), f"parallel.{key} {text}")
            for key, texts in wrong.items()
            for text in texts
        ),
        *_about_no_resources(parallel),
        *_about_observer(parallel),
    ]


def _wrong_workers(workers: object) -> Iterator[str]:
    if isinstance(workers, tuple) and workers[0] > workers[1]:
        yield (
            f"is [{workers[0]}, {workers[1]}]; the fewest come first (set [parallel] workers = "
            f"[{workers[1]}, {workers[0]}])"
        )


def _wrong_resources(resources: Mapping[str, float]) -> Iterator[str]:
    """What Ray would refuse when the workers start."""
    for name, amount in resources.items():
        if name not in _RESOURCES.values() and (meant := _RESOURCES.get(name.lower())):
            yield f'names "{name}"; write it as Ray does (set {meant} in [parallel] resources)'
        elif name == "object_store_memory":
            yield (
                f'names "{name}", which no worker takes: arrays do not go through Ray\'s (remove '
                "it from [parallel] resources)"
            )
        elif name == "GPU" and amount > 1 and amount % 1:
            yield (
                f"has GPU = {amount:g}; must be a whole number, or below 1 for a part of one (set "
                "GPU in [parallel] resources)"
            )


def _wrong_labels(selector: Mapping[str, str]) -> Iterator[str]:
    for label, rule in selector.items():
        if not (_LABEL.fullmatch(label) and _LABEL_RULE.fullmatch(rule)):
            yield (
                f'has "{label}" = "{rule}"; must be a label and its value, "!value", "in(value, '
                'value)" or "!in(value, value)" (set [parallel] label_selector)'
            )


def _wrong_address(address: str) -> Iterator[str]:
    if wrong := what_is_wrong(address):
        yield f'is "{address}"; {wrong}'


def _about_no_resources(parallel: ParallelSection) -> Iterator[Problem]:
    """What Ray would wait for without end."""
    if parallel.workers == "auto" and not any(parallel.resources.values()):
        text = (
            'parallel.resources is 0 throughout with parallel.workers "auto"; any number of such '
            "workers has room (set [parallel] workers to a number, or resources = {CPU = 1})"
        )
        yield Problem(("parallel.resources", "parallel.workers"), text)


def _about_observer(parallel: ParallelSection) -> Iterator[Problem]:
    """What the observer itself says of its options, before anything is started."""
    named, keys = parallel.named_observer, ("parallel.observer", "parallel.observer_options")
    if named is None:
        if parallel.observer_options:
            text = (
                "parallel.observer_options is set without parallel.observer; there is no observer "
                "to take them (set [parallel] observer, or remove observer_options)"
            )
            yield Problem(keys, text)
        return
    try:
        json.dumps(parallel.observer_options)
    except TypeError as error:
        text = f"parallel.observer_options holds no plain values ({error}; edit them)"
        yield Problem(keys, text)
        return
    try:
        found = named.find(OBSERVER, None)  # In place of the context of a process.
    except ConfigError as error:
        yield from (Problem(keys, text) for text in error.problems)
        return
    if check := getattr(found, "check", None):
        for text in check(parallel.observer_options, has_workers=parallel.workers != 0):
            yield Problem((*keys, "parallel.workers"), f"parallel.observer_options: {text}")


def _about_length(train: TrainSection) -> Iterator[Problem]:
    if train.epochs is None and train.steps is None:
        text = (
            "train.epochs and train.steps are both missing; one must end the training"
            " (set [train] epochs or steps)"
        )
        yield Problem(("train.epochs", "train.steps"), text)


def _about_evaluation(train: TrainSection) -> Iterator[Problem]:
    said = {key: it for key in EVALUATION_KEYS if (it := getattr(train, key)) is not None}
    if len(said) > 1:
        text = " and ".join(f"train.{key} is {it}" for key, it in said.items())
        text += "; only one may say when a run is evaluated (keep one of them in [train])"
        yield Problem(tuple(f"train.{key}" for key in said), text)
    if not said:
        keys = tuple(f"train.{key}" for key in EVALUATION_KEYS)
        text = f"{', '.join(keys)} are all missing; one must say when a run is evaluated"
        yield Problem(keys, f"{text} (set [train] {EVALUATION_KEYS[0]})")


def _about_target(train: TrainSection) -> Iterator[Problem]:
    try:
        if train.target is not None:
            Target.parse(train.target)
    except ConfigError as error:
        yield from (Problem(("train.target",), text) for text in error.problems)


def _about_sampler(batch: BatchSection) -> Iterator[Problem]:
    if batch.sampler == "permutation" and batch.sampler_options:
        text = (
            f'batch.sampler_options is {shown(batch.sampler_options)} with sampler "permutation", '
            "which has none (remove it from [batch], or name a sampler of your own)"
        )
        yield Problem(("batch.sampler", "batch.sampler_options"), text)
