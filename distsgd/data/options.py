"""What a user may say about preparing data, CSV files included; the values are checked here, once.

Where prepared data are kept unless another place is named: `default_cache_dir`. No I/O here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

from distsgd.errors import ConfigError, DataError

NULL_NUMBERS = ("NA", "N/A", "null", "NULL")


@dataclass(frozen=True, slots=True)
class CsvSettings:
    """How CSV files are written: for training and test files, evaluation and prediction alike.

    Attributes:
        separator: One character between two values, or ``"auto"``: comma, semicolon or tab,
            whichever the header has most of.
        encoding: Of the text, as Python names it.
        decimal: ``"."`` or ``","``.
        null_values: Texts that stand for a missing value, besides an empty field. None: NA, N/A,
            null and NULL in columns of numbers, nothing in columns of text.
    """

    separator: str = "auto"
    encoding: str = "utf-8"
    decimal: str = "."
    null_values: tuple[str, ...] | None = None


DEFAULT_CSV = CsvSettings()


def csv_problems(csv: CsvSettings) -> Iterator[tuple[str, str]]:
    """Each field that breaks a rule, and the rule."""
    separator, null_values = csv.separator, csv.null_values
    texts = (separator, csv.encoding, csv.decimal, *(null_values or ()))
    if isinstance(null_values, str) or not all(isinstance(text, str) for text in texts):
        yield "null_values", "a tuple of texts, and all other settings texts"
        return
    is_usable = len(separator) == 1 and separator.isascii() and separator not in '"\r\n\0'
    if separator != "auto" and (not is_usable or separator.isalnum()):
        yield "separator", '"auto" or one character that is no letter, digit, quote or line end'
    if not _is_text_encoding(csv.encoding):
        yield "encoding", 'an encoding that Python knows, such as "utf-8", "latin-1" or "utf-16"'
    if csv.decimal not in {".", ","}:
        yield "decimal", '"." or ","'
    if null_values is not None and len(set(null_values)) < len(null_values):
        yield "null_values", "different texts"
    if csv.decimal == separator:
        yield "separator", f"another character than decimal, which is {csv.decimal!r} too"


def with_given(base: CsvSettings, given: Sequence[str]) -> CsvSettings:
    """Settings with some replaced by texts ``field=value``; several null values by commas.

    Raises:
        ConfigError: A text names no field, or its value breaks a rule.

    >>> with_given(CsvSettings(), ["separator=|", "null_values=?,-"]).null_values
    ('?', '-')
    """
    known = tuple(field.name for field in fields(base))
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            rule = f"must be FIELD=VALUE, with a field of {', '.join(known)}"
            raise ConfigError([f"--csv is {text!r}; {rule}"])
        found[name] = tuple(value.split(",")) if name == "null_values" else value
    if found.get("separator") == "\\t":
        found["separator"] = "\t"
    settings = replace(base, **found)
    problems = [
        f"--csv {field} is {getattr(settings, field)!r}; must be {rule}"
        for field, rule in csv_problems(settings)
    ]
    if problems:
        raise ConfigError(problems)
    return settings


def way_out(field: str, value: str) -> str:
    """How to set a field, in a configuration and on the command line.

    >>> way_out("separator", "|")
    'set [data.csv] separator = "|" (in commands without a configuration: --csv separator="|")'
    """
    shown = value.replace("\t", "\\t")
    key = f'set [data.csv] {field} = "{shown}"'
    return f'{key} (in commands without a configuration: --csv {field}="{shown}")'


def _is_text_encoding(name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)
        return not b"".decode(name) and "a,1\n".encode(name).decode(name) == "a,1\n"
    except (LookupError, ValueError):
        return False


MAX_SHARDS = 4096
SHARD_BYTES = 64 << 20

ClassName = str | int | bool
LabelKind = Literal["class", "number"]
AskedLabelKind = Literal["auto", "class", "number"]
FeatureKind = Literal["number", "integer"]
Standardise = Literal["mean_std", "min_max", "none"]
Dtype = Literal["float32", "float64"]


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How sources become a data set; every field is an input to its bits.

    Attributes:
        label: Columns to be predicted; several are numbers.
        features: Columns to predict from, in this order; patterns (``*``, ``?``, ``[abc]``) stand
            for columns in the order of the files. Or ``"rest"``: every other column but the index
            of a data frame.
        exclude: Columns and patterns of columns that are no features.
        feature_kind: ``"integer"`` takes whole numbers from 0 on, such as tokens, kept as they are.
        label_kind: ``"auto"`` takes text, booleans and integers as classes, floats and several
            columns as numbers; a list of integers as a class for each of its places.
        target_shape: Axes of a row's label, for one of as many numbers or classes; None: that of a
            column of tensors, one axis of a column of lists or of several columns, none of a class.
        test_fraction: Share of rows held out, in [0, 1): exactly so many, rounded half up, each row
            equally likely.
        stratify: Whether that share is held out of each class.
        test_sources: Files or globs whose rows are all held out, instead of a fraction.
        standardise: ``x' = (x - shift) / scale`` from statistics of the training rows.
        dtype: Of the prepared features and number labels.
        split_seed: Key of the split and of the order of the rows.
        shards: Number of training shards; ``"auto"`` keeps them at about 64 MiB.
        csv: How CSV files are written.
    """

    label: tuple[str, ...]
    features: Literal["rest"] | tuple[str, ...] = "rest"
    exclude: tuple[str, ...] = ()
    feature_kind: FeatureKind = "number"
    label_kind: AskedLabelKind = "auto"
    target_shape: tuple[int, ...] | None = None
    test_fraction: float = 0.0
    stratify: bool = False
    test_sources: tuple[str, ...] = ()
    standardise: Standardise = "none"
    dtype: Dtype = "float32"
    split_seed: int = 0
    shards: int | Literal["auto"] = "auto"
    csv: CsvSettings = DEFAULT_CSV

    @property
    def chosen(self) -> dict[str, Any]:
        """All of them by name, but those later ones that are as they go without saying.

        Prepared data are found again by these, also by what an earlier version prepared.
        """
        found = asdict(self)
        unsaid = {"feature_kind": "number", "target_shape": None}
        return {name: it for name, it in found.items() if (name, it) not in unsaid.items()}

    @property
    def named_columns(self) -> tuple[str, ...]:
        """Labels and features by their names, with patterns as they are typed."""
        return (*self.label, *(() if self.features == "rest" else self.features))


def validate_options(options: PrepareOptions) -> None:
    """Raise ConfigError with every value that breaks a rule."""
    if not isinstance(options, PrepareOptions):
        raise ConfigError([f"options is {options!r}; must be PrepareOptions(label=(...,), ...)"])
    problems = _problems(options)
    if problems:
        raise ConfigError(problems)


def default_cache_dir(xdg_cache_home: str | None = None) -> Path:
    """Where prepared data are kept unless another place is named.

    Args:
        xdg_cache_home: Where the user keeps caches; ``~/.cache`` unless it is an absolute path (a
            relative one is void by the XDG Base Directory Specification 0.8).

    Raises DataError where the user has no home.
    """
    if xdg_cache_home and Path(xdg_cache_home).is_absolute():
        return Path(xdg_cache_home) / "distsgd"
    try:
        return Path.home() / ".cache" / "distsgd"
    except RuntimeError:
        reason = "this user has no home directory; name a cache with --cache-dir (cache_dir=)"
        raise DataError("~/.cache/distsgd", reason) from None


def _problems(options: PrepareOptions) -> list[str]:
    problems = []

    def rule(name: str, holds: object, must_be: str) -> None:
        if not holds:
            problems.append(f"{name} is {getattr(options, name)!r}; must be {must_be}")

    kinds = get_args(FeatureKind)
    rule("feature_kind", options.feature_kind in kinds, f"one of {', '.join(kinds)}")
    shape = options.target_shape
    fits = shape is None or (isinstance(shape, tuple | list) and len(shape) and _are_counts(shape))
    rule("target_shape", fits, "whole numbers of at least 1, or None")
    rule("label_kind", options.label_kind in get_args(AskedLabelKind), "auto, class or number")
    standardise = get_args(Standardise)
    rule("standardise", options.standardise in standardise, f"one of {', '.join(standardise)}")
    rule("dtype", options.dtype in get_args(Dtype), "float32 or float64")
    rule("csv", isinstance(options.csv, CsvSettings), "CsvSettings(separator=..., ...)")
    if isinstance(options.csv, CsvSettings):
        problems += [
            f"csv.{field} is {getattr(options.csv, field)!r}; must be {must_be}"
            for field, must_be in csv_problems(options.csv)
        ]
    problems += _column_problems("label", options.label)
    if options.features != "rest":
        problems += _column_problems("features", options.features)
    if options.exclude != ():
        problems += _column_problems("exclude", options.exclude)
    fraction, shards, seed = options.test_fraction, options.shards, options.split_seed
    fits = isinstance(fraction, Real) and 0.0 <= float(fraction) < 1.0
    rule("test_fraction", fits, "a number, at least 0 and below 1")
    fits = shards == "auto" or (_is_integer(shards) and 1 <= int(shards) <= MAX_SHARDS)
    rule("shards", fits, f'1 to {MAX_SHARDS} or "auto"')
    rule("split_seed", _is_integer(seed) and 0 <= seed < 1 << 64, "at least 0 and below 2**64")
    rule("stratify", isinstance(options.stratify, bool), "true or false")
    rule("test_sources", _are_texts(options.test_sources), "a tuple of files or globs")
    if options.feature_kind == "integer" and options.standardise != "none":
        problems.append(
            f'standardise is {options.standardise!r} with feature_kind "integer"; integers, such as'
            ' tokens, are kept as they are: set standardise to "none"'
        )
    if options.test_sources and fraction:
        problems.append("test_fraction and test sources exclude each other; set test_fraction to 0")
    if options.stratify is True and not fraction:
        problems.append(
            "stratify is True and test_fraction 0: there is no split; set test_fraction above 0, or"
            " stratify to False"
        )
    return problems


def _are_counts(values: Sequence[object]) -> bool:
    return all(_is_integer(value) and value >= 1 for value in values)  # type: ignore[operator]


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(value, str) for value in values)


def _column_problems(name: str, columns: object) -> list[str]:
    if not columns or not isinstance(columns, tuple | list) or not _are_texts(columns):
        return [f"{name} is {columns!r}; must be a tuple of at least one column name"]
    if len(set(columns)) < len(columns):
        return [f"{name} is {columns!r}; a column may be named once only"]
    return []
