"""Rules between keys of ``[data]`` that are right by themselves. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator

from distsgd.config.data_section import DataSection
from distsgd.config.problems import Problem, shown
from distsgd.data.options import CsvSettings, csv_problems


def data_disagreements(data: DataSection) -> list[Problem]:
    """What cannot stand together in the section, whatever the model is."""
    return [
        *_about_test_rows(data),
        *_about_label_kind(data),
        *_about_stratified_rows(data),
        *_about_integers(data),
        *_about_columns(data),
        *_about_csv(data),
    ]


def _about_test_rows(data: DataSection) -> Iterator[Problem]:
    if data.test_fraction and data.test_path is not None:
        text = (
            f"data.test_fraction is {data.test_fraction:g} with data.test_path set;"
            " only one may choose the test rows (remove one of them from [data])"
        )
        yield Problem(("data.test_fraction", "data.test_path"), text)


def _about_label_kind(data: DataSection) -> Iterator[Problem]:
    """What the labels are said to be, against other keys that say it."""
    if data.label_kind == "number" and data.one_hot:
        text = (
            'data.label_kind is "number" with data.one_hot; only classes are made zeros and ones'
            " (remove one of them from [data])"
        )
        yield Problem(("data.label_kind", "data.one_hot"), text)
    elif data.label_kind == "number" and data.stratify:
        text = (
            'data.stratify is true with data.label_kind "number"; only classes can be stratified'
            " (remove one of them from [data])"
        )
        yield Problem(("data.stratify", "data.label_kind"), text)
    elif data.label_kind == "class" and len(data.labels) > 1:
        text = (
            f'data.label_kind is "class" with {len(data.labels)} columns in data.label; several'
            " columns are numbers (set [data] label to one column, of lists for several classes a"
            " row)"
        )
        yield Problem(("data.label_kind", "data.label"), text)


def _about_stratified_rows(data: DataSection) -> Iterator[Problem]:
    if data.stratify and not data.test_fraction:
        text = (
            "data.stratify is true with data.test_fraction 0; there is nothing to split"
            " (set [data] test_fraction, or remove stratify)"
        )
        yield Problem(("data.stratify", "data.test_fraction"), text)


def _about_integers(data: DataSection) -> Iterator[Problem]:
    if data.feature_kind == "integer" and data.standardise != "none":
        text = (
            f'data.standardise is "{data.standardise}" with data.feature_kind "integer"; integers '
            'are kept as they are (remove standardise from [data], or set it to "none")'
        )
        yield Problem(("data.standardise", "data.feature_kind"), text)


def _about_columns(data: DataSection) -> Iterator[Problem]:
    features = () if data.features == "rest" else data.features
    lists = (("label", data.labels), ("features", features), ("exclude", data.exclude))
    for key, names in lists:
        for name in sorted({name for name in names if names.count(name) > 1}):
            text = f'data.{key} names "{name}" twice; each column once (edit [data] {key})'
            yield Problem((f"data.{key}",), text)
    for name in sorted(set(features) & set(data.labels)):
        text = (
            f'data.features names "{name}", which is a label; a label must not be a feature'
            " (remove it from [data] features)"
        )
        yield Problem(("data.features", "data.label"), text)
    for name in sorted(set(features) & set(data.exclude)):
        text = (
            f'data.features and data.exclude both name "{name}"; a column is a feature or it is'
            " not (remove it from one of them)"
        )
        yield Problem(("data.features", "data.exclude"), text)


def _about_csv(data: DataSection) -> Iterator[Problem]:
    for key, rule in csv_problems(CsvSettings(**data.csv.model_dump())):
        text = f"data.csv.{key} is {shown(getattr(data.csv, key))}; must be {rule}"
        yield Problem((f"data.csv.{key}",), f"{text} (set [data.csv] {key})")
