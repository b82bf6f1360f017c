"""Rules between keys that are right by themselves. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator

from distsgd.config.problems import Problem
from distsgd.config.sections import DataSection, Loss, ScheduleSection, TrainSection


def disagreements(
    data: DataSection, *, loss: Loss, schedule: ScheduleSection, train: TrainSection
) -> list[Problem]:
    """Everything that cannot stand together in one configuration."""
    return [
        *_about_test_rows(data),
        *_about_loss(data, loss),
        *_about_columns(data),
        *_about_length(schedule, train),
    ]


def _about_test_rows(data: DataSection) -> Iterator[Problem]:
    if data.test_fraction and data.test_path is not None:
        text = (
            f"data.test_fraction is {data.test_fraction:g} beside data.test_path;"
            " only one may choose the test rows (remove one of them from [data])"
        )
        yield Problem(("data.test_fraction", "data.test_path"), text)


def _about_loss(data: DataSection, loss: Loss) -> Iterator[Problem]:
    if loss == "softmax_cross_entropy" and data.one_hot:
        text = (
            f'data.one_hot is true with model.loss "{loss}"; that loss takes the class itself'
            ' (remove one_hot from [data], or set [model] loss to "squared_error", "quadratic"'
            ' or "sigmoid_cross_entropy")'
        )
        yield Problem(("data.one_hot", "model.loss"), text)
    many = f"data.label names {len(data.labels)} columns"
    if loss == "softmax_cross_entropy" and len(data.labels) > 1:
        text = (
            f'{many} with model.loss "{loss}"; that loss needs one column of classes'
            " (set [data] label to one column, or set another [model] loss)"
        )
        yield Problem(("data.label", "model.loss"), text)
    if data.one_hot and len(data.labels) > 1:
        text = (
            f"{many} with data.one_hot true; one column of classes is needed"
            " (set [data] label to one column, or remove one_hot)"
        )
        yield Problem(("data.label", "data.one_hot"), text)


def _about_columns(data: DataSection) -> Iterator[Problem]:
    features = () if data.features == "rest" else data.features
    for key, names in (("label", data.labels), ("features", features)):
        for name in sorted({name for name in names if names.count(name) > 1}):
            text = f'data.{key} names "{name}" twice; each column once (edit [data] {key})'
            yield Problem((f"data.{key}",), text)
    for name in sorted(set(features) & set(data.labels)):
        text = (
            f'data.features names "{name}", which is a label; a label must not be a feature'
            " (remove it from [data] features)"
        )
        yield Problem(("data.features", "data.label"), text)


def _about_length(schedule: ScheduleSection, train: TrainSection) -> Iterator[Problem]:
    if schedule.type == "step" and schedule.every_steps is None:
        text = (
            'schedule.every_steps is missing; must be 1 or more with type "step"'
            " (set [schedule] every_steps)"
        )
        yield Problem(("schedule.type", "schedule.every_steps"), text)
    if train.epochs is None and train.steps is None:
        text = (
            "train.epochs and train.steps are both missing; one must end the training"
            " (set [train] epochs or steps)"
        )
        yield Problem(("train.epochs", "train.steps"), text)
