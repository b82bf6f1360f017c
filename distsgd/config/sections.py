"""What may stand in each section of a configuration: keys, defaults, bounds, meanings. No I/O here.

Every key states its rule in words and in the bounds that pydantic checks, so that a mistake is
answered by the rule. Keys that are settings of a component are said there: see `composed`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from distsgd.base.named import NAMED
from distsgd.base.settings import quoted
from distsgd.config.problems import in_words
from distsgd.config.section import (
    ComposedSection,
    Layer,
    Name,
    Section,
    composed,
    count,
    key,
)
from distsgd.data.options import Dtype
from distsgd.errors import ConfigError
from distsgd.nn.losses import LOSSES
from distsgd.nn.weights import Initialiser
from distsgd.optim.rules import RULES, USUAL_LEARNING_RATE
from distsgd.optim.schedules import SCHEDULES
from distsgd.parallel.numerics import Numerics
from distsgd.parallel.server.rollback import OnDivergence
from distsgd.parallel.server.target import RULE, Target

DEFAULT_EPOCHS = 10


def _loss_name(name: str | None) -> str | None:
    if name is not None and name not in LOSSES and not re.fullmatch(NAMED, name):
        raise ValueError(name)
    return name


def _default_init(validated: dict[str, Any]) -> Initialiser | None:
    return "glorot" if validated.get("factory") is None else None


class ModelSection(Section):
    """The model and what it is measured by."""

    layers: Annotated[
        tuple[Layer, ...] | None,
        key("the network, first layer first", "a list of one or more layers", min_length=1),
    ] = None
    factory: Annotated[
        str | None,
        key(
            "a model of your own, of PyTorch or JAX, instead of layers: what makes it, in a file "
            "module.py where the command is started, or in what is installed",
            '"module:function", or left out',
            pattern=NAMED,
        ),
    ] = None
    options: Annotated[
        dict[str, Any],
        key("keyword arguments of the factory", "a table, such as {width = 256}"),
    ] = Field(default_factory=dict)
    loss: Annotated[
        str | None,
        AfterValidator(_loss_name),
        key(
            "what training makes small; of a factory only where that makes a module alone",
            f'{quoted(LOSSES)} or "module:Class" of your own',
        ),
    ] = None
    loss_options: Annotated[
        dict[str, bool | float | str],
        key(
            "settings of the loss",
            '{tau = 1.0} for exponential, {delta = 1.0} for huber, {reduction = "mean"} over the '
            "outputs for losses of numbers",
        ),
    ] = Field(default_factory=dict)
    init: Annotated[
        Initialiser | None,
        key(
            "first weights, at random but for zeros; those of a factory are its own",
            in_words(get_args(Initialiser)),
        ),
    ] = Field(default_factory=_default_init)
    initial_weights: Annotated[
        str, key("first weights from a file", 'a safetensors file, or "" for none')
    ] = ""

    @property
    def has_factory(self) -> bool:
        """Is it a model of the user's own, not layers?"""
        return self.factory is not None


def _usual_learning_rate(validated: dict[str, Any]) -> float:
    rule = RULES.get(validated.get("type", ""))
    return rule.usual_learning_rate if rule else USUAL_LEARNING_RATE


@composed(RULES, default="sgd", meaning="the update rule", of_own="a rule of your own")
class OptimizerSection(ComposedSection):
    """The update rule; its settings are those of `distsgd.optim.rules`."""

    options: Annotated[
        dict[str, Any], key("settings of a rule of your own", "a table, such as {momentum = 0.9}")
    ] = Field(default_factory=dict)
    learning_rate: Annotated[
        float, key("at the peak of the schedule", "a number above 0", gt=0)
    ] = Field(default_factory=_usual_learning_rate)
    clip_norm: Annotated[
        float | None,
        key("largest norm of the mean gradient", "a number above 0, or left out", gt=0),
    ] = None
    frozen: Annotated[
        tuple[Name, ...],
        key(
            "weights that stay as they are",
            'a list of parameters or entries, such as "layers.0.weight" or "layers.1.weight[2,3]"',
        ),
    ] = ()


@composed(SCHEDULES, default="constant", meaning="shape of the learning rate")
class ScheduleSection(ComposedSection):
    """How the learning rate changes from step to step; see `distsgd.optim.schedules`."""


class BatchSection(Section):
    """The rows of one update."""

    size: Annotated[
        Literal["full"] | Annotated[int, Field(ge=1)],
        key("rows of one update", '1 to the number of rows or "full"'),
    ] = 64
    sampler: Annotated[
        Literal["permutation"] | Annotated[str, Field(pattern=NAMED)],
        key(
            "how mini-batches are drawn: from a permutation of all rows an epoch, or as you like",
            '"permutation", or "module:name" for a sampler of your own',
        ),
    ] = "permutation"
    sampler_options: Annotated[
        dict[str, Any],
        key("settings of a sampler of your own", "a table, such as {pool = 50}"),
    ] = Field(default_factory=dict)

    def replaced_by(self, key: str, value: object) -> set[str]:
        """Options are those of one sampler."""
        return {"sampler_options"} if key == "sampler" and value != self.sampler else set()


def _default_epochs(validated: dict[str, Any]) -> int | None:
    return None if validated.get("steps") else DEFAULT_EPOCHS


EVALUATION_KEYS = ("evaluate_every_epochs", "evaluate_every_steps", "evaluate_every_samples")


def _default_evaluation(validated: dict[str, Any]) -> int | None:
    return None if any(validated.get(key) for key in EVALUATION_KEYS) else 1


def _plain_target(text: str | None) -> str | None:
    """One spelling of a target; what is none is told with its reason, by `agreement`."""
    try:
        return None if text is None else str(Target.parse(text))
    except ConfigError:
        return text


class TrainSection(Section):
    """How long, from which seed, and what is written down on the way."""

    steps: Annotated[int | None, count("updates at most; alone: no limit of epochs")] = None
    epochs: Annotated[
        int | None, count(f"passes at most; {DEFAULT_EPOCHS} where steps is left out too")
    ] = Field(default_factory=_default_epochs)
    seed: Annotated[
        int, key("of all chance but the split", "a whole number, 0 to 2^63 - 1", ge=0, lt=2**63)
    ] = 0
    dtype: Annotated[Dtype, key("of all numbers", in_words(get_args(Dtype)))] = "float32"
    numerics: Annotated[
        Numerics,
        key(
            "as each processor is fastest, or the same bits on every x86-64 processor with AVX2",
            in_words(get_args(Numerics)),
        ),
    ] = "native"
    stop_gradient_norm: Annotated[
        float | None,
        key("norm of the mean gradient that ends it", "a number above 0, or left out", gt=0),
    ] = None
    on_divergence: Annotated[
        OnDivergence,
        key(
            "when the loss grows without bound",
            '"stop", "halve_lr" (go back, half the rate) or "continue" (train on, and record it)',
        ),
    ] = "stop"
    target: Annotated[
        str | None,
        AfterValidator(_plain_target),
        key("evaluation that ends it", f"{RULE}, or left out"),
    ] = None
    evaluate_every_steps: Annotated[int | None, count("steps between two evaluations")] = None
    evaluate_every_samples: Annotated[
        int | None,
        count("samples between two evaluations, each after the step that reaches a multiple"),
    ] = None
    evaluate_every_epochs: Annotated[
        int | None, count("epochs between two evaluations; 1 where neither of the others is set")
    ] = Field(default_factory=_default_evaluation)
    history_every: Annotated[int, count("steps a row of the history holds")] = 1
    digest_every: Annotated[int, count("steps between two digests of the weights")] = 100

    def replaced_by(self, key: str, value: object) -> set[str]:  # noqa: ARG002 -- any value.
        """One grid of evaluations takes the place of another."""
        return set(EVALUATION_KEYS) if key in EVALUATION_KEYS else set()


class StatisticsSection(Section):
    """What is measured besides the loss."""

    per_sample: Annotated[
        bool, key("norms of per-sample gradients, noise scale", "true or false")
    ] = True


class CheckpointSection(Section):
    """When the run is saved. No input to the bits."""

    every_s: Annotated[
        float,
        key(
            "seconds between two checkpoints, more where they would take more than 1.5 % of the "
            "time; 0: never by time",
            "0 or more",
            ge=0,
        ),
    ] = 30.0
    every_steps: Annotated[int | None, count("steps between two checkpoints")] = None
    keep: Annotated[int, count("newest checkpoints kept, besides the best by test loss")] = 3
