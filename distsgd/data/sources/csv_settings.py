"""What a user may say about CSV files; the values are checked here, once. No I/O here."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from distsgd.errors import ConfigError

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
