"""Rules between keys of ``[model]``, and between its loss and the labels. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distsgd.config.data_section import DataSection
from distsgd.config.problems import Problem, shown
from distsgd.config.sections import ModelSection
from distsgd.errors import ModelError, shortened
from distsgd.nn.losses import Loss, find_loss, wrong_options


def model_disagreements(data: DataSection, model: ModelSection) -> list[Problem]:
    """What cannot stand together in the section, or of it with these labels."""
    return [*_about_model(model), *_about_named_loss(data, model)]


def _about_model(model: ModelSection) -> Iterator[Problem]:
    """Either layers or a factory, whose options are plain."""
    if not model.has_factory:
        if model.options:
            text = (
                f"model.options is {shown(model.options)} without a factory; they are its settings"
                " (set [model] factory, or remove options)"
            )
            yield Problem(("model.options", "model.factory"), text)
        return
    yield from _about_options(model.options)
    reasons = {
        "layers": "what it makes is the whole model",
        "init": "what it makes has first weights of its own, by train.seed",
    }
    if model.loss is None:
        reasons["loss_options"] = "no loss is named that would take them"
    for key, reason in reasons.items():
        if getattr(model, key):
            text = (
                f'model.factory is "{model.factory}" and model.{key} is set; {reason} (remove '
                f"{key} from [model], or factory)"
            )
            yield Problem((f"model.{key}", "model.factory"), text)


def _about_options(options: Mapping[str, Any]) -> Iterator[Problem]:
    """They are written down with the run, and read again wherever the model is made."""
    for key, value in _not_plain("model.options", options):
        text = (
            f"{key} is {shortened(repr(value), 60)}; must be a plain value: text, a finite number, "
            "true or false, None, or a list or table of those (pass a name, such as "
            '"ReLU", and look it up in the factory)'
        )
        yield Problem(("model.options",), text)


def _not_plain(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What JSON has no word for, by its key."""
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        for name, it in value.items():
            yield from _not_plain(f"{key}.{name}", it)
    elif isinstance(value, list | tuple):
        for index, it in enumerate(value):
            yield from _not_plain(f"{key}[{index}]", it)
    elif not isinstance(value, str | int | float | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        yield key, value


def _about_named_loss(data: DataSection, model: ModelSection) -> Iterator[Problem]:
    """The loss against its options and the rows; of a factory's own nothing is known here."""
    if model.loss is None:
        return
    options = model.loss_options
    try:
        wrong = dict(wrong_options(model.loss, options))
        right = {name: value for name, value in options.items() if name not in wrong}
        found = find_loss(model.loss, right)
    except ModelError as error:
        text = f"model.loss: {error} (edit [model] loss and loss_options)"
        yield Problem(("model.loss", "model.loss_options"), text)
        return
    yield from _about_stratify(data, found)
    yield from _about_loss(data, found)
    yield from _about_loss_options(found, options, wrong)


def _about_stratify(data: DataSection, loss: Loss) -> Iterator[Problem]:
    if not data.stratify:
        return
    if loss.target_kind != "class" and not data.one_hot:
        text = (
            f'data.stratify is true with model.loss "{loss.name}"; the labels are numbers, and only'
            " classes can be stratified (remove stratify from [data], or set one_hot)"
        )
        yield Problem(("data.stratify", "model.loss"), text)
    elif data.target_shape is not None:
        text = (
            "data.stratify is true with data.target_shape; a row of several labels is of no one "
            "class (remove stratify from [data])"
        )
        yield Problem(("data.stratify", "data.target_shape"), text)


def _about_loss(data: DataSection, loss: Loss) -> Iterator[Problem]:
    takes_class, domain = loss.target_kind == "class", loss.target_domain
    kind = "class" if takes_class or data.one_hot else "number"
    if data.label_kind not in ("auto", kind) and not data.one_hot:
        what = "classes" if takes_class else "numbers"
        text = (
            f'data.label_kind is "{data.label_kind}" with model.loss "{loss.name}", which takes '
            f"{what}; the loss decides (remove label_kind from [data], or set another [model] loss)"
        )
        yield Problem(("data.label_kind", "model.loss"), text)
    if takes_class and data.one_hot:
        text = (
            f'data.one_hot is true with model.loss "{loss.name}"; that loss takes the class itself'
            ' (remove one_hot from [data], or set [model] loss to "squared_error", "quadratic"'
            ' or "sigmoid_cross_entropy")'
        )
        yield Problem(("data.one_hot", "model.loss"), text)
    elif data.one_hot and not domain.holds(np.array([0.0, 1.0])):
        text = (
            f'data.one_hot is true with model.loss "{loss.name}", which takes targets '
            f"{domain.rule}; those are 0 and 1 (remove one_hot from [data], or set [model] loss to "
            '"cross_entropy")'
        )
        yield Problem(("data.one_hot", "model.loss"), text)
    many = f"data.label names {len(data.labels)} columns"
    if takes_class and len(data.labels) > 1:
        text = (
            f'{many} with model.loss "{loss.name}"; that loss needs one column of classes'
            " (set [data] label to one column, or set another [model] loss)"
        )
        yield Problem(("data.label", "model.loss"), text)
    if data.one_hot and len(data.labels) > 1:
        text = (
            f"{many} with data.one_hot true; one column of classes is needed"
            " (set [data] label to one column, or remove one_hot)"
        )
        yield Problem(("data.label", "data.one_hot"), text)


def _about_loss_options(
    loss: Loss, options: Mapping[str, Any], wrong: Mapping[str, str]
) -> Iterator[Problem]:
    for name, rule in wrong.items():
        text = f"model.loss_options.{name} is {_plain(options[name])}; must be {rule}"
        if not rule:
            text = (
                f'model.loss_options has {name}, which loss "{loss.name}" does not know; it takes '
                f"{', '.join(loss.option_names) or 'none'}"
            )
        keys = ("model.loss", "model.loss_options")
        yield Problem(keys, f"{text} (edit [model] loss_options)")


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
