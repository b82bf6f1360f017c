"""Words for what is wrong with a configuration: the value, the rule, the way out. No I/O here."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from distsgd.errors import shortened

_LONGEST_VALUE = 60
_NO_DEFAULT = "default_factory_not_called"  # Only because another key of the section is wrong.


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: the dotted `keys` it is about and its line of `text`."""

    keys: tuple[str, ...]
    text: str


def shown(value: Any) -> str:
    """A value as it would stand in the TOML file, cut when it is long.

    >>> shown(True), shown("adam"), shown(("a", "b")), shown(float("nan"))
    ('true', '"adam"', '["a", "b"]', 'nan')
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return shortened(json.dumps(value, ensure_ascii=False, default=str), _LONGEST_VALUE)


def in_words(names: Iterable[str]) -> str:
    """Names one may choose from.

    >>> in_words(["sgd", "momentum", "nesterov"])
    '"sgd", "momentum" or "nesterov"'
    """
    *others, last = (f'"{name}"' for name in names)
    return f"{', '.join(others)} or {last}" if others else last


def found_by(
    error: ValidationError, raw: Mapping[str, Any], *, root: type[BaseModel]
) -> list[Problem]:
    """What pydantic found in `raw`, one problem a key (a union reports one a member)."""
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_context=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # A list is "too short" too when pydantic could use none of its items.
        if detail["type"] == _NO_DEFAULT:
            continue
        problem = _problem(detail, raw, root)
        found.setdefault(problem.text, problem)
    return list(found.values())


def found_alone(
    error: ValidationError, values: Mapping[str, Any], *, table: type[BaseModel]
) -> list[str]:
    """What pydantic found in the keys of one `table`, a line each."""
    section = table.__name__.removesuffix("Section")
    name = section.lower() if section != table.__name__ else section
    found: dict[str, None] = {}
    for detail in error.errors(include_url=False, include_context=False):
        if detail["type"] == _NO_DEFAULT:
            continue
        key = str(detail["loc"][0])
        if key not in table.model_fields:
            line = _unknown(f"{name}.{key}", key, list(table.model_fields), None)
        else:
            state = "missing" if key not in values else ""
            rule = _rule(table.model_fields[key])
            line = _line(f"{name}.{key}", state, values.get(key), rule, f"give another {key}")
        found.setdefault(line)
    return list(found)


def missing(dotted: str, root: type[BaseModel]) -> Problem:
    """The problem that the key `dotted` is not there."""
    section, _, key = dotted.partition(".")
    rule = _rule(_table(section, root).model_fields[key])
    return Problem((dotted,), _line(dotted, "missing", None, rule, f"set [{section}] {key}"))


def unusable_override(override: str, keys: Sequence[str], root: type[BaseModel]) -> str:
    """The line for a ``--set`` that cannot be read."""
    way_out = "write it as --set section.key=value, the value as in TOML: --set batch.size=64"
    homes = _homes(keys[-1], root)
    if len(keys) == 1 and homes:
        way_out = f"did you mean {' or '.join(f'{home}.{keys[0]}' for home in homes)}?"
    return f"--set {override} cannot be read; {way_out}"


def into_options(section: str, key: str, value: Any) -> str:
    """The way out for a setting of a rule of one's own that stands in the section itself."""
    return (
        f"settings of a rule of your own go into options (set [{section}] options = "
        f"{{{key} = {shown(value)}}})"
    )


def _problem(detail: Mapping[str, Any], raw: Mapping[str, Any], root: type[BaseModel]) -> Problem:
    location, kind = detail["loc"], detail["type"]
    section, *inside = (str(step) for step in location)
    if not inside:
        return _section_problem(section, kind, detail["input"], root)
    table, values = _table(section, root), raw[section]
    if len(inside) > 1 and (nested := _subtable(table, inside[0])) is not None:
        section, table, values = f"{section}.{inside[0]}", nested, values[inside[0]]
        inside = inside[1:]
    key = inside[0]
    dotted = f"{section}.{key}"
    if key not in table.model_fields:
        if "options" in table.model_fields and ":" in str(values.get("type")):
            text = f"{dotted} is not known; {into_options(section, key, values[key])}"
            return Problem((dotted,), text)
        return Problem((dotted,), _unknown(dotted, key, list(table.model_fields), root))
    if dotted == "model.layers" and len(inside) > 1:
        field = table.model_fields[key]
        return Problem((dotted,), _layer_line(location[2:], kind, detail["input"], field))
    # The whole value says more than the member of it that was tried last.
    whole = values.get(key)
    rule = _rule(table.model_fields[key])
    return Problem((dotted,), _line(dotted, kind, whole, rule, f"set [{section}] {key}"))


def _section_problem(section: str, kind: str, value: Any, root: type[BaseModel]) -> Problem:
    if kind == "extra_forbidden":
        known = list(root.model_fields)
        return Problem((section,), _unknown(section, section, known, root))
    keys = tuple(f"{section}.{key}" for key in _table(section, root).model_fields)
    text = f"{section} is {shown(value)}; must be a table (write [{section}], its keys below it)"
    return Problem((section, *keys), text)


def _layer_line(rest: Sequence[str | int], kind: str, value: Any, layers: FieldInfo) -> str:
    """The line for a fault inside layer number ``rest[0]``; ``rest[1]`` is its type, then a key."""
    from distsgd.nn import layer_types  # noqa: PLC0415 -- loads numpy; for this mistake only.

    dotted, way_out = f"model.layers[{rest[0]}]", "edit [model] layers"
    if len(rest) == 1:
        if isinstance(value, Mapping) and layer_types.is_batch_normalisation(value.get("type")):
            return f"{dotted} is {shown(value)}; {layer_types.BATCH_NORMALISATION} ({way_out})"
        types = ", ".join(f'"{name}"' for name in layer_types.LAYER_TYPES)
        return _line(dotted, kind, value, f"a table whose type is one of {types}", way_out)
    layer, key = _layer_class(str(rest[1]), layers), str(rest[2])
    dotted = f"{dotted}.{key}"
    if kind == "extra_forbidden":
        return _unknown(dotted, key, list(layer.model_fields), None)
    return _line(dotted, kind, value, _rule(layer.model_fields[key]), way_out)


def _layer_class(tag: str, layers: FieldInfo) -> type[BaseModel]:
    of_layers = get_args(layers.annotation)[0]  # Or None, of a model that has none.
    union = get_args(get_args(of_layers)[0])[0]
    for layer in get_args(union):
        if tag in get_args(layer.model_fields["type"].annotation):
            return layer  # type: ignore[no-any-return]
    raise AssertionError(tag)


def _line(dotted: str, kind: str, value: Any, rule: str, way_out: str) -> str:
    state = "is missing" if kind == "missing" else f"is {shown(value)}"
    return f"{dotted} {state}; must be {rule}{_near(value, rule)} ({way_out})"


def _near(value: Any, rule: str) -> str:
    """The word among those in quotes in `rule` that `value` was probably meant to be."""
    word = value.get("type") if isinstance(value, Mapping) else value
    words = re.findall(r'"(\w+)"', rule) if isinstance(word, str) else []
    near = difflib.get_close_matches(str(word).lower(), words, n=1)
    return f'; did you mean "{near[0]}"?' if near and near[0] != word else ""


def _unknown(dotted: str, key: str, known: Sequence[str], root: type[BaseModel] | None) -> str:
    near = _nearest(key, known)
    homes = _homes(key, root) if root else []
    if near:
        way_out = f"did you mean {in_words(near)}?"
    elif homes:
        way_out = f"did you mean [{homes[0]}] {key}?"
    else:
        way_out = f"known here: {', '.join(known)}"
    return f"{dotted} is not known; {way_out}"


def _nearest(key: str, known: Sequence[str]) -> list[str]:
    """The names that are nearest to `key`, all that are equally near; none where none is.

    >>> _nearest("beta", ["type", "beta1", "beta2"]), _nearest("beta11", ["beta1", "beta2"])
    (['beta1', 'beta2'], ['beta1'])
    """
    nearness = {
        name: difflib.SequenceMatcher(None, name, key).ratio()
        for name in difflib.get_close_matches(key, known, n=len(known) or 1)
    }
    return sorted(name for name, it in nearness.items() if it == max(nearness.values()))


def _homes(key: str, root: type[BaseModel]) -> list[str]:
    """The sections that know `key`."""
    return [name for name in root.model_fields if key in _table(name, root).model_fields]


def _table(section: str, root: type[BaseModel]) -> type[BaseModel]:
    table = root.model_fields[section].annotation
    assert isinstance(table, type)
    assert issubclass(table, BaseModel)
    return table


def _subtable(table: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The table below `key`, where one is."""
    field = table.model_fields.get(key)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _rule(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if extra is None:
        return " or ".join(f'"{name}"' for name in get_args(field.annotation))
    assert isinstance(extra, dict), "every key of the configuration states its rule"
    return str(extra["rule"])
