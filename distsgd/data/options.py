"""What a user may say about preparing data; the values are checked here, once. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distsgd.errors import ConfigError

MAX_SHARDS = 4096
SHARD_BYTES = 64 << 20

LabelKind = Literal["class", "number"]
Standardise = Literal["mean_std", "min_max", "none"]
Dtype = Literal["float32", "float64"]


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How sources become a data set; every field is an input to its bits.

    Attributes:
        label: Columns to be predicted; several are numbers.
        features: Columns to predict from, in this order, or ``"rest"``: every other column but
            pandas' own index columns.
        label_kind: ``"auto"`` takes text, booleans and integers as classes, floats and several
            columns as numbers.
        test_fraction: Share of rows held out, in [0, 1), chosen by a keyed hash of the row number.
        test_sources: Files or globs whose rows are all held out, instead of a fraction.
        standardise: ``x' = (x - shift) / scale`` from statistics of the training rows.
        dtype: Of the prepared features and number labels.
        seed: Key of the split and of the order of the rows.
        shards: Number of training shards; ``"auto"`` keeps them at about 64 MiB.
    """

    label: tuple[str, ...]
    features: Literal["rest"] | tuple[str, ...] = "rest"
    label_kind: Literal["auto", "class", "number"] = "auto"
    test_fraction: float = 0.0
    test_sources: tuple[str, ...] = ()
    standardise: Standardise = "none"
    dtype: Dtype = "float32"
    seed: int = 0
    shards: int | Literal["auto"] = "auto"


def validate_options(options: PrepareOptions) -> None:
    """Raise ConfigError with every value that breaks a rule."""
    problems = [problem for problem in _problems(options) if problem]
    if problems:
        raise ConfigError(problems)


def _problems(options: PrepareOptions) -> tuple[str, ...]:
    features = () if options.features == "rest" else options.features
    one_of = {
        "label_kind": ("auto", "class", "number"),
        "standardise": ("mean_std", "min_max", "none"),
        "dtype": ("float32", "float64"),
    }
    choices = tuple(
        f"{name} is {getattr(options, name)!r}; must be one of {', '.join(values)}"
        for name, values in one_of.items()
        if getattr(options, name) not in values
    )
    return (
        *choices,
        _column_problem("label", options.label),
        _column_problem("features", features) if options.features != "rest" else "",
        ""
        if 0.0 <= options.test_fraction < 1.0
        else f"test_fraction is {options.test_fraction}; must be at least 0 and below 1",
        "test_fraction and test sources exclude each other; set test_fraction to 0"
        if options.test_sources and options.test_fraction
        else "",
        ""
        if options.shards == "auto" or 1 <= options.shards <= MAX_SHARDS
        else f'shards is {options.shards}; must be 1 to {MAX_SHARDS} or "auto"',
        ""
        if 0 <= options.seed < 1 << 64
        else f"seed is {options.seed}; must be at least 0 and below 2**64",
    )


def _column_problem(name: str, columns: tuple[str, ...]) -> str:
    if isinstance(columns, str) or not columns:
        return f"{name} is {columns!r}; must be a tuple of at least one column name"
    if len(set(columns)) < len(columns):
        return f"{name} is {columns!r}; a column may be named once only"
    return ""
